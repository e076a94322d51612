"""The routes of files and uploads."""

from web.access.rights import Rights
from web.api.accounts import files, uploads
from web.api.accounts.file_objects import FileDeleted, FileObject, FileProperties
from web.api.file_forms import MAX_FILE_BYTES, MAX_PART_BYTES, FormType
from web.api.routing import Route
from web.http.responses import Page

#: The forms of a file and of a part.
FILE, PART = FormType("file", MAX_FILE_BYTES), FormType("data", MAX_PART_BYTES, is_part=True)

FILE_ROUTES = (
    Route("POST", "/v1/files", files.create, Rights.WRITE, form=FILE, body=FileProperties, response=FileObject,
          creates=True),
    Route("GET", "/v1/files", files.list_files, Rights.READ, query=files.ListFiles, response=Page[FileObject]),
    Route("GET", "/v1/files/{file_id}", files.read, Rights.READ, response=FileObject),
    Route("GET", "/v1/files/{file_id}/content", files.content, Rights.READ,
          other_responses={206: None, 302: None, 304: None, 416: None}),
    Route("DELETE", "/v1/files/{file_id}", files.delete, Rights.WRITE, response=FileDeleted),
    Route("POST", "/v1/uploads", uploads.create, Rights.WRITE, body=uploads.CreateUpload,
          response=uploads.UploadObject, creates=True),
    Route("POST", "/v1/uploads/{upload_id}/parts", uploads.add_part, Rights.WRITE, form=PART,
          response=uploads.PartObject, creates=True),
    Route("POST", "/v1/uploads/{upload_id}/complete", uploads.complete, Rights.WRITE, body=uploads.CompleteUpload,
          response=uploads.UploadObject, creates=True),
    Route("POST", "/v1/uploads/{upload_id}/cancel", uploads.cancel, Rights.WRITE, response=uploads.UploadObject,
          cost=0),
)  # fmt: skip
