"""The route table: every address of the HTTP door, what answers it, and who may use it."""

from typing import Any

from web import home, jobs
from web.accounts import (
    account,
    admin,
    api_keys,
    audit,
    auth,
    erasure,
    files,
    invitations,
    letters,
    me,
    members,
    oidc,
    signup,
    usage,
)
from web.accounts.account import AccountObject, RenameAccount
from web.accounts.admin import (
    Accounts,
    AdminAccount,
    AdminJob,
    ChangeAccount,
    DeadJobs,
    PlanObject,
    PutPlan,
)
from web.accounts.api_keys import ChangeKey, CreatedKey, CreateKey, KeyObject, RevokedKey
from web.accounts.audit import AuditObject, Events
from web.accounts.auth import ChangePassword, Ended, EndedSession, Refresh, SessionObject
from web.accounts.erasure import Confirmation, Erasure
from web.accounts.files import FileDeleted, FileObject, FilePage, Files
from web.accounts.invitations import Accept, InvitationObject, Invite, RevokedInvitation
from web.accounts.letters import Forgot, Posted, Reset, Verified, Verify
from web.accounts.me import ChangeMe, MeObject
from web.accounts.members import ChangeMember, MemberObject, RemovedMember
from web.accounts.oidc import Exchange, ProviderObject
from web.accounts.signup import Entered, LogIn, PublicKeys, SignUp
from web.accounts.usage import AccountUsage
from web.description import docs, openapi
from web.entrance.rights import Rights
from web.health import probes
from web.http.answers import Page
from web.http.paging import Listing
from web.jobs import JobObject, List
from web.memory import importing, meditations, memories, recalling, schedules
from web.memory.meditations import ChangeObject, ListChanges, MeditationObject, StartMeditations
from web.memory.schedule_shapes import ChangeSchedule, CreateSchedule, FiringObject, ScheduleDeleted, ScheduleObject
from web.memory.shapes import (
    ChangeMemory,
    CitingMemory,
    CreateMemories,
    ForgetMemories,
    Hits,
    ListMemories,
    MemoriesDeleted,
    MemoryDeleted,
    MemoryObject,
    SearchMemories,
)
from web.routing import Row
from web.streams.following import Cursor
from web.turns import conversations, counting, embeddings, models, responses
from web.turns.chat import completions
from web.turns.chat.objects import ChatCompletion
from web.turns.chat.request import CreateChatCompletion
from web.turns.conversations import AddItems, CreateConversation, Items, OneItem, UpdateConversation
from web.turns.embeddings import CreateEmbeddings, EmbeddingList
from web.turns.requests import CountTokens, CreateResponse
from web.turns.responses import InputItems, Retrieve
from web.turns.shapes import (
    Alive,
    ConversationDeleted,
    ConversationObject,
    InputTokens,
    ItemObject,
    ModelObject,
    Readiness,
    ResponseDeleted,
    ResponseObject,
)

ROUTES = (
    Row("GET", "/", home.home, Rights.PUBLIC),
    Row("GET", "/pages/{name}", home.page, Rights.PUBLIC),
    Row("POST", "/signup", signup.signup, Rights.PUBLIC, body=SignUp, answer=Entered, status=201),
    Row("POST", "/login", signup.login, Rights.PUBLIC, body=LogIn, answer=Entered),
    Row("GET", "/.well-known/jwks.json", signup.jwks, Rights.PUBLIC, answer=PublicKeys),
    Row("POST", "/auth/refresh", auth.refresh, Rights.PUBLIC, body=Refresh, answer=Entered, cost=0),
    Row("POST", "/auth/logout", auth.logout, Rights.PERSON, answer=EndedSession, cost=0),
    Row("POST", "/auth/logout_all", auth.logout_all, Rights.PERSON, answer=Ended, cost=0),
    Row("POST", "/auth/password/change", auth.change_password, Rights.PERSON, body=ChangePassword, answer=Ended),
    Row("POST", "/auth/email/verify", letters.verify, Rights.PUBLIC, body=Verify, answer=Verified),
    Row("POST", "/auth/email/resend", letters.resend, Rights.PERSON, answer=Posted, status=202),
    Row("POST", "/auth/password/forgot", letters.forgot, Rights.PUBLIC, body=Forgot, answer=Posted, status=202),
    Row("POST", "/auth/password/reset", letters.set_password, Rights.PUBLIC, body=Reset, answer=Verified),
    Row("POST", "/auth/invitations/accept", invitations.accept, Rights.PUBLIC, body=Accept, answer=Entered),
    Row("GET", "/auth/verify", letters.page, Rights.PUBLIC),
    Row("GET", "/auth/reset", letters.page, Rights.PUBLIC),
    Row("GET", "/auth/invitation", letters.page, Rights.PUBLIC),
    Row("GET", "/auth/oidc", oidc.list_providers, Rights.PUBLIC, answer=Page[ProviderObject]),
    Row("POST", "/auth/oidc/exchange", oidc.exchange, Rights.PUBLIC, body=Exchange, answer=Entered),
    Row("GET", "/auth/oidc/{provider}", oidc.begin, Rights.PUBLIC, status=302, acts=True),
    Row("GET", "/auth/oidc/{provider}/callback", oidc.callback, Rights.PUBLIC, status=302, acts=True),
    Row("GET", "/v1/me", me.read, Rights.READ, answer=MeObject),
    Row("PATCH", "/v1/me", me.change, Rights.PERSON, body=ChangeMe, answer=MeObject),
    Row("GET", "/v1/me/sessions", auth.list_sessions, Rights.PERSON, query=Listing, answer=Page[SessionObject]),
    Row("DELETE", "/v1/me/sessions/{session_id}", auth.revoke, Rights.PERSON, answer=EndedSession, cost=0),
    Row("GET", "/v1/models", models.list_models, Rights.READ, answer=Page[ModelObject]),
    Row("GET", "/v1/models/{model:path}", models.get_model, Rights.READ, answer=ModelObject),
    Row("POST", "/v1/chat/completions", completions.create, Rights.INFERENCE, CreateChatCompletion, None,
        ChatCompletion, streams=True, creates=True, joins=True),
    Row("POST", "/v1/embeddings", embeddings.create, Rights.INFERENCE, CreateEmbeddings, None, EmbeddingList,
        creates=True, joins=True),
    Row("POST", "/v1/responses", responses.create, Rights.INFERENCE, CreateResponse, None, ResponseObject,
        streams=True, creates=True, joins=True),
    Row("POST", "/v1/responses/input_tokens", counting.count, Rights.INFERENCE, CountTokens, answer=InputTokens),
    Row("GET", "/v1/responses/{response_id}", responses.retrieve, Rights.READ, None, Retrieve, ResponseObject,
        streams=True),
    Row("DELETE", "/v1/responses/{response_id}", responses.delete, Rights.WRITE, answer=ResponseDeleted),
    Row("POST", "/v1/responses/{response_id}/cancel", responses.cancel, Rights.WRITE, answer=ResponseObject, cost=0),
    Row("GET", "/v1/responses/{response_id}/input_items", responses.input_items, Rights.READ, None, InputItems,
        Page[ItemObject]),
    Row("POST", "/v1/conversations", conversations.create, Rights.WRITE, CreateConversation, None, ConversationObject,
        creates=True),
    Row("GET", "/v1/conversations/{conversation_id}", conversations.retrieve, Rights.READ, answer=ConversationObject),
    Row("POST", "/v1/conversations/{conversation_id}", conversations.update, Rights.WRITE, UpdateConversation,
        answer=ConversationObject),
    Row("DELETE", "/v1/conversations/{conversation_id}", conversations.delete, Rights.WRITE,
        answer=ConversationDeleted),
    Row("GET", "/v1/conversations/{conversation_id}/items", conversations.items, Rights.READ, None, Items,
        Page[ItemObject]),
    Row("POST", "/v1/conversations/{conversation_id}/items", conversations.add_items, Rights.WRITE, AddItems, OneItem,
        Page[ItemObject], creates=True),
    Row("GET", "/v1/conversations/{conversation_id}/items/{item_id}", conversations.retrieve_item, Rights.READ, None,
        OneItem, ItemObject),
    Row("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}", conversations.delete_item, Rights.WRITE,
        answer=ConversationObject),
    Row("POST", "/v1/memories", memories.create, Rights.WRITE, CreateMemories, None, Page[MemoryObject], 201,
        {202: JobObject}, creates=True),
    Row("GET", "/v1/memories", memories.list_memories, Rights.READ, None, ListMemories, Page[MemoryObject]),
    Row("DELETE", "/v1/memories", memories.delete_many, Rights.WRITE, None, ForgetMemories, MemoriesDeleted,
        also={202: JobObject}),
    Row("POST", "/v1/memories/search", recalling.search, Rights.READ, SearchMemories, answer=Hits),
    Row("POST", "/v1/memories/import", importing.bring, Rights.WRITE, answer=JobObject, status=202, creates=True,
        uploads=importing.MEDIA_TYPE),
    Row("GET", "/v1/memories/{memory_id}", memories.read, Rights.READ, answer=CitingMemory),
    Row("PATCH", "/v1/memories/{memory_id}", memories.change, Rights.WRITE, ChangeMemory, answer=MemoryObject,
        also={202: JobObject}),
    Row("DELETE", "/v1/memories/{memory_id}", memories.delete, Rights.WRITE, answer=MemoryDeleted),
    Row("POST", "/v1/meditations", meditations.create, Rights.WRITE, answer=MeditationObject, status=202, creates=True),
    Row("GET", "/v1/meditations", meditations.list_meditations, Rights.READ, None, Listing,
        Page[MeditationObject]),
    Row("GET", "/v1/meditations/{meditation_id}", meditations.read, Rights.READ, answer=MeditationObject),
    Row("GET", "/v1/meditations/{meditation_id}/changes", meditations.changes, Rights.READ, None, ListChanges,
        Page[ChangeObject]),
    Row("GET", "/v1/meditations/{meditation_id}/events", meditations.events, Rights.READ, query=Cursor, streams=True),
    Row("POST", "/v1/meditations/{meditation_id}/revert", meditations.revert, Rights.WRITE, answer=MeditationObject),
    Row("GET", "/v1/jobs", jobs.list_jobs, Rights.READ, query=List, answer=Page[JobObject]),
    Row("GET", "/v1/jobs/{job_id}", jobs.read, Rights.READ, answer=JobObject),
    Row("GET", "/v1/jobs/{job_id}/events", jobs.events, Rights.READ, query=Cursor, streams=True),
    Row("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel, Rights.WRITE, answer=JobObject, cost=0),
    Row("POST", "/v1/schedules", schedules.create, Rights.INFERENCE, CreateSchedule, None, ScheduleObject, 201,
        creates=True),
    Row("GET", "/v1/schedules", schedules.list_schedules, Rights.READ, None, Listing, Page[ScheduleObject]),
    Row("GET", "/v1/schedules/{schedule_id}", schedules.read, Rights.READ, answer=ScheduleObject),
    Row("PATCH", "/v1/schedules/{schedule_id}", schedules.change, Rights.INFERENCE, ChangeSchedule, None,
        ScheduleObject),
    Row("DELETE", "/v1/schedules/{schedule_id}", schedules.delete, Rights.WRITE, answer=ScheduleDeleted, cost=0),
    Row("POST", "/v1/schedules/{schedule_id}/pause", schedules.pause, Rights.WRITE, answer=ScheduleObject, cost=0),
    Row("POST", "/v1/schedules/{schedule_id}/resume", schedules.resume, Rights.INFERENCE, answer=ScheduleObject),
    Row("GET", "/v1/schedules/{schedule_id}/firings", schedules.list_firings, Rights.READ, None, Listing,
        Page[FiringObject]),
    Row("GET", "/v1/account", account.read, Rights.READ, answer=AccountObject),
    Row("PATCH", "/v1/account", account.change, Rights.ADMIN, body=RenameAccount, answer=AccountObject),
    Row("GET", "/v1/account/usage", usage.read, Rights.READ, answer=AccountUsage),
    Row("GET", "/v1/account/members", members.list_members, Rights.READ, query=Listing, answer=Page[MemberObject]),
    Row("PATCH", "/v1/account/members/{user_id}", members.change, Rights.ADMIN, ChangeMember, None, MemberObject),
    Row("DELETE", "/v1/account/members/{user_id}", members.remove, Rights.KEYS, answer=RemovedMember, cost=0),
    Row(
        "POST",
        "/v1/account/invitations",
        invitations.create,
        Rights.ADMIN,
        Invite,
        None,
        InvitationObject,
        201,
        creates=True,
    ),
    Row(
        "GET",
        "/v1/account/invitations",
        invitations.list_invitations,
        Rights.ADMIN,
        None,
        Listing,
        Page[InvitationObject],
    ),
    Row(
        "DELETE",
        "/v1/account/invitations/{invitation_id}",
        invitations.revoke,
        Rights.ADMIN,
        answer=RevokedInvitation,
        cost=0,
    ),
    Row("POST", "/v1/account/export", erasure.export, Rights.ADMIN, answer=JobObject, status=202, creates=True),
    Row("DELETE", "/v1/account", erasure.erase_account, Rights.OWNER, None, Confirmation, Erasure, 202),
    Row("DELETE", "/v1/me", erasure.erase_me, Rights.PERSON, None, Confirmation, Erasure, 202),
    Row("GET", "/v1/files", files.list_files, Rights.READ, query=Files, answer=FilePage),
    Row("GET", "/v1/files/{file_id}", files.read, Rights.READ, answer=FileObject),
    Row("GET", "/v1/files/{file_id}/content", files.content, Rights.READ),
    Row("DELETE", "/v1/files/{file_id}", files.delete, Rights.WRITE, answer=FileDeleted),
    Row("POST", "/v1/api_keys", api_keys.create, Rights.PERSON, CreateKey, None, CreatedKey, 201, creates=True),
    Row("GET", "/v1/api_keys", api_keys.list_keys, Rights.KEYS, query=Listing, answer=Page[KeyObject]),
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
    Row("POST", "/admin/meditations", meditations.start_many, Rights.OPERATOR, StartMeditations, None, JobObject, 202,
        creates=True),
    Row("GET", "/openapi.json", openapi.read, Rights.PUBLIC, answer=dict[str, Any], also={304: None}),
    Row("GET", "/docs", docs.docs, Rights.PUBLIC),
    Row("GET", "/docs/{name}", docs.asset, Rights.PUBLIC),
    Row("GET", "/healthz", probes.healthz, Rights.PUBLIC, answer=Alive),
    Row("GET", "/readyz", probes.readyz, Rights.PUBLIC, answer=Readiness, also={503: Readiness}),
    Row("GET", "/metrics", probes.metrics, Rights.PUBLIC),
)  # fmt: skip
