"""The routes of reports."""

from web.access.rights import Rights
from web.api.reports import admin_reports, reports
from web.api.reports.schemas import AdminCreateReport, CreateReport, ListReports, ReportDeleted, ReportObject
from web.api.routing import Route
from web.http.responses import Page

REPORT_ROUTES = (
    Route("POST", "/v1/reports", reports.create, Rights.WRITE, body=CreateReport, response=ReportObject, status=202,
          creates=True),
    Route("GET", "/v1/reports", reports.list_reports, Rights.READ, query=ListReports, response=Page[ReportObject]),
    Route("GET", "/v1/reports/{report_id}", reports.read, Rights.READ, response=ReportObject),
    Route("DELETE", "/v1/reports/{report_id}", reports.delete, Rights.WRITE, response=ReportDeleted, cost=0),
    Route("POST", "/admin/reports", admin_reports.create, Rights.OPERATOR, body=AdminCreateReport,
          response=ReportObject, status=202, creates=True),
    Route("GET", "/admin/reports", admin_reports.list_reports, Rights.OPERATOR, query=ListReports,
          response=Page[ReportObject]),
    Route("GET", "/admin/reports/{report_id}", admin_reports.read, Rights.OPERATOR, response=ReportObject),
    Route("GET", "/admin/reports/{report_id}/content", admin_reports.content, Rights.OPERATOR),
    Route("DELETE", "/admin/reports/{report_id}", admin_reports.delete, Rights.OPERATOR, response=ReportDeleted),
)  # fmt: skip
