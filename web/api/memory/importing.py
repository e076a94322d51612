"""`POST /v1/memories/import`: many memories as JSON Lines, by a job that tells how far it is."""

from starlette.responses import Response

from models.jobs import jobs
from models.platform.errors import InvalidRequest, NotFound
from pipelines.memory import memory_jobs
from pipelines.memory.import_file import BYTE_ORDER_MARK
from web.api.job_object import job_object
from web.api.job_results import job_headers
from web.api.request import Request
from web.http.responses import json_response

#: The media type of the body.
MEDIA_TYPE = "application/x-ndjson"


def bring(request: Request) -> Response:
    """`POST /v1/memories/import`: one memory a line, with the fields of `POST /v1/memories`; at most 64 MiB.

    The job's `progress` tells how far it is; its `result` which lines are no memories. The others are imported.
    """
    upload = request.upload
    if upload is None or not upload.lines:
        raise InvalidRequest("The body should have a memory on each line.", code="empty_body")
    if not upload.file.read(256).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        raise InvalidRequest("The body should be JSON Lines: an object on each line.", code="invalid_json")
    upload.file.seek(0)
    job_id = request.new_id("job")
    platform, who, limits = request.platform, request.caller, request.admission.limits
    count = {"size": upload.size, "lines": upload.lines}
    memory_jobs.enqueue_import(
        platform.database, platform.objects, who, upload.file, **count, job_id=job_id, limits=limits
    )
    platform.queue.nudge()
    with platform.database.connection() as connection:
        job = jobs.read(connection, job_id, who.account_id)
    if job is None:
        raise NotFound("The job of this request is gone.")
    return json_response(job_object(job), 202, job_headers(job_id))
