"""`POST /v1/memories/import`: import memories from JSON Lines in a job."""

from starlette.responses import Response

from models.accounts.ownership import Access
from models.jobs import jobs
from models.platform.errors import InvalidRequest, NotFound
from pipelines.memory import memory_jobs
from pipelines.memory.import_file import BYTE_ORDER_MARK
from web.api.job_object import job_object
from web.api.job_results import job_headers
from web.api.request import Request
from web.api.requested_space import queried_space
from web.http.responses import json_response

#: The media type of the body.
MEDIA_TYPE = "application/x-ndjson"


def create(request: Request) -> Response:
    """`POST /v1/memories/import`: import memories from JSON Lines, at most 64 MiB.

    Each line has the fields of `POST /v1/memories`. The response is the job; its `progress` counts lines, its `result`
    lists the invalid lines. Valid lines are imported.
    """
    key, upload = queried_space(request), request.upload
    if upload is None or not upload.lines:
        raise InvalidRequest(
            "The request body is empty. Provide JSON Lines: one memory, a JSON object, per line.", code="empty_body"
        )
    if not upload.file.read(256).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        raise InvalidRequest(
            "The request body is not JSON Lines. Provide one memory, a JSON object, per line.", code="invalid_json"
        )
    upload.file.seek(0)
    job_id = request.new_id("job")
    platform, limits = request.platform, request.admission.limits
    counts = {"size": upload.size, "lines": upload.lines}
    memory_jobs.enqueue_import(
        platform.database, platform.objects, key, upload.file, **counts, job_id=job_id, limits=limits
    )
    platform.queue.nudge(key.account_id)
    with platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
    if job is None:
        raise NotFound("The job of this request was deleted.")
    return json_response(job_object(job), 202, job_headers(job_id))
