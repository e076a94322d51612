"""The route table: every address of the HTTP door, what answers it, and who may use it."""

from typing import Any

from web import (
    accounts,
    admin,
    api_keys,
    audit,
    auth,
    conversations,
    docs,
    erasure,
    files,
    health,
    home,
    jobs,
    models,
    openapi,
    responses,
)
from web.accounts import Entered, LogIn, PublicKeys, SignUp
from web.admin import (
    Accounts,
    AdminAccount,
    AdminJob,
    ChangeAccount,
    DeadJobs,
    PlanObject,
    PutPlan,
)
from web.answers import Page
from web.api_keys import ChangeKey, CreatedKey, CreateKey, KeyObject, Keys, RevokedKey
from web.audit import AuditObject, Events
from web.auth import ChangePassword, Ended, EndedSession, Refresh, SessionObject, Sessions
from web.erasure import Confirmation, Erasure
from web.files import FileDeleted, FileObject, FilePage, Files
from web.jobs import JobObject
from web.rights import Rights
from web.routing import Row

ROUTES = (
    Row("GET", "/", home.home, Rights.PUBLIC),
    Row("GET", "/pages/{name}", home.page, Rights.PUBLIC),
    Row("POST", "/signup", accounts.signup, Rights.PUBLIC, body=SignUp, answer=Entered, status=201),
    Row("POST", "/login", accounts.login, Rights.PUBLIC, body=LogIn, answer=Entered),
    Row("GET", "/.well-known/jwks.json", accounts.jwks, Rights.PUBLIC, answer=PublicKeys),
    Row("POST", "/auth/refresh", auth.refresh, Rights.PUBLIC, body=Refresh, answer=Entered),
    Row("POST", "/auth/logout", auth.logout, Rights.PERSON, answer=EndedSession, cost=0),
    Row("POST", "/auth/logout_all", auth.logout_all, Rights.PERSON, answer=Ended, cost=0),
    Row("POST", "/auth/password/change", auth.change_password, Rights.PERSON, body=ChangePassword, answer=Ended),
    Row("GET", "/v1/me/sessions", auth.list_sessions, Rights.PERSON, query=Sessions, answer=Page[SessionObject]),
    Row("DELETE", "/v1/me/sessions/{session_id}", auth.revoke, Rights.PERSON, answer=EndedSession, cost=0),
    Row("GET", "/v1/models", models.list_models, Rights.READ),
    Row("GET", "/v1/models/{model:path}", models.get_model, Rights.READ),
    Row("POST", "/v1/responses", responses.create, Rights.INFERENCE),
    Row("GET", "/v1/responses/{response_id}", responses.retrieve, Rights.READ),
    Row("DELETE", "/v1/responses/{response_id}", responses.delete, Rights.WRITE),
    Row("POST", "/v1/responses/{response_id}/cancel", responses.cancel, Rights.WRITE, cost=0),
    Row("GET", "/v1/responses/{response_id}/input_items", responses.input_items, Rights.READ),
    Row("POST", "/v1/conversations", conversations.create, Rights.WRITE),
    Row("GET", "/v1/conversations/{conversation_id}", conversations.retrieve, Rights.READ),
    Row("DELETE", "/v1/conversations/{conversation_id}", conversations.delete, Rights.WRITE),
    Row("GET", "/v1/conversations/{conversation_id}/items", conversations.items, Rights.READ),
    Row("GET", "/v1/jobs", jobs.list_jobs, Rights.READ),
    Row("GET", "/v1/jobs/{job_id}", jobs.read, Rights.READ),
    Row("GET", "/v1/jobs/{job_id}/events", jobs.events, Rights.READ),
    Row("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel, Rights.WRITE, cost=0),
    Row("POST", "/v1/account/export", erasure.export, Rights.ADMIN, answer=JobObject, status=202, creates=True),
    Row("DELETE", "/v1/account", erasure.erase_account, Rights.OWNER, None, Confirmation, Erasure, 202),
    Row("DELETE", "/v1/me", erasure.erase_me, Rights.PERSON, None, Confirmation, Erasure, 202),
    Row("GET", "/v1/files", files.list_files, Rights.READ, query=Files, answer=FilePage),
    Row("GET", "/v1/files/{file_id}", files.read, Rights.READ, answer=FileObject),
    Row("GET", "/v1/files/{file_id}/content", files.content, Rights.READ),
    Row("DELETE", "/v1/files/{file_id}", files.delete, Rights.WRITE, answer=FileDeleted),
    Row("POST", "/v1/api_keys", api_keys.create, Rights.PERSON, CreateKey, None, CreatedKey, 201, creates=True),
    Row("GET", "/v1/api_keys", api_keys.list_keys, Rights.KEYS, query=Keys, answer=Page[KeyObject]),
    Row("GET", "/v1/api_keys/{key_id}", api_keys.read, Rights.KEYS, answer=KeyObject),
    Row("PATCH", "/v1/api_keys/{key_id}", api_keys.change, Rights.PERSON, body=ChangeKey, answer=KeyObject),
    Row("DELETE", "/v1/api_keys/{key_id}", api_keys.revoke, Rights.KEYS, answer=RevokedKey, cost=0),
    Row("GET", "/v1/audit_events", audit.list_events, Rights.ADMIN, query=Events, answer=Page[AuditObject]),
    Row("GET", "/admin/accounts", admin.list_accounts, Rights.OPERATOR, query=Accounts, answer=Page[AdminAccount]),
    Row("GET", "/admin/accounts/{account_id}", admin.read_account, Rights.OPERATOR, answer=AdminAccount),
    Row(
        "PATCH",
        "/admin/accounts/{account_id}",
        admin.change_account,
        Rights.OPERATOR,
        ChangeAccount,
        None,
        AdminAccount,
    ),
    Row("GET", "/admin/plans", admin.list_plans, Rights.OPERATOR, answer=Page[PlanObject]),
    Row("PUT", "/admin/plans/{plan_id}", admin.put_plan, Rights.OPERATOR, body=PutPlan, answer=PlanObject),
    Row("GET", "/admin/jobs", admin.list_jobs, Rights.OPERATOR, query=DeadJobs, answer=Page[AdminJob]),
    Row("POST", "/admin/jobs/{job_id}/replay", admin.replay_job, Rights.OPERATOR, answer=AdminJob),
    Row("POST", "/admin/jobs/{job_id}/discard", admin.discard_job, Rights.OPERATOR, answer=AdminJob),
    Row("GET", "/openapi.json", openapi.read, Rights.PUBLIC, answer=dict[str, Any], also={304: None}),
    Row("GET", "/docs", docs.docs, Rights.PUBLIC),
    Row("GET", "/docs/{name}", docs.asset, Rights.PUBLIC),
    Row("GET", "/healthz", health.healthz, Rights.PUBLIC),
    Row("GET", "/readyz", health.readyz, Rights.PUBLIC),
    Row("GET", "/metrics", health.metrics, Rights.PUBLIC),
)
