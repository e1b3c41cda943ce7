"""Evaluations over HTTP: ask, list, poll, follow, read, cancel."""

from http import HTTPStatus

from aiohttp import web

from lora_server.catalog import EvaluationQuery
from lora_server.errors import EvaluationNotFound
from lora_server.evaluation.plans import cost_of
from lora_server.evaluation.reports import PAGE, REPORT
from lora_server.records import Evaluation, EvaluationStatus
from lora_server.web import answers, evaluation_answers, evaluation_schemas
from lora_server.web.evaluation_plans import live_at, planned
from lora_server.web.event_stream import stream
from lora_server.web.forms import parsed_json, parsed_query
from lora_server.web.keys import AUDIT, CONFIG, DRAIN, EVALUATIONS, LIBRARY, PRINCIPAL
from lora_server.web.preferences import wait_s
from lora_server.web.problems import RETRY_AFTER_S

AWAY_S = 10.0  # that a report is waited for while there is no worker; then comes a 202
# A page from our own template; nothing in it needs a script or another host.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


async def run(request: web.Request) -> web.Response:
    """Run an evaluation of a stored LoRA.

    The tier `weights` is answered with its report. Any other is answered with 202 and a
    `Location` to poll; `Prefer: wait=N` waits up to N seconds for the report first. An equal
    evaluation that is there already is returned (`cached`), unless `force` asks for a new one.
    """
    wanted = await parsed_json(evaluation_schemas.EvaluationRequest, request)
    request[AUDIT] = {"partial_path": wanted.partial_path[:512]}
    lora = await live_at(request, wanted.partial_path, "partial_path")
    plan = await planned(request, wanted, lora)
    if wanted.validate_only:
        return answers.respond(
            evaluation_answers.foreseen(lora, plan, cost_of(plan, lora.facts.size))
        )
    service = request.app[EVALUATIONS]
    asked = await service.submit(
        lora,
        plan,
        requested_by=request[PRINCIPAL].subject,
        timeout_s=wanted.timeout_s,
        force=wanted.force,
    )
    request[AUDIT] |= {"evaluation": asked.id, "sha256": lora.sha256}
    preferred_s = wait_s(request.headers.getall("Prefer", ()))
    patience_s = asked.timeout_s * 2 if service.worker.alive else AWAY_S
    most_s = patience_s if preferred_s is None else preferred_s
    drain = request.app[DRAIN]
    evaluation = await service.evaluator.ended(asked.id, most_s, given_up=lambda: drain.draining)
    answer = await _answered(request, evaluation, cached=asked.ended)
    if preferred_s is not None:
        answer.headers["Preference-Applied"] = f"wait={preferred_s:g}"
    return answer


async def _answered(
    request: web.Request, evaluation: Evaluation, *, cached: bool = False
) -> web.Response:
    report = None
    if evaluation.status is EvaluationStatus.SUCCEEDED:
        store, reports = request.app[LIBRARY].store, request.app[EVALUATIONS].reports
        report = await store.run(reports.read, evaluation.id, REPORT)
    if evaluation.ended:
        return evaluation_answers.whole(evaluation, report, cached=cached)
    base = request.app[CONFIG].server.base_path
    headers = {
        "Location": f"{base}/evaluation/{evaluation.id}",
        "Retry-After": str(RETRY_AFTER_S),
    }
    return evaluation_answers.whole(evaluation, None, HTTPStatus.ACCEPTED, headers)


async def health(request: web.Request) -> web.Response:
    """Tell which tiers can run and why not, and how queue, worker and GPU are."""
    known = request.app[EVALUATIONS].health()
    answer = evaluation_schemas.EvaluationHealthAnswer.of(known)
    if known.status == "unavailable":
        return answers.respond(answer, 503, {"Retry-After": str(RETRY_AFTER_S)})
    return answers.respond(answer)


async def list_evaluations(request: web.Request) -> web.Response:
    """List evaluations, the newest first, one page at a time."""
    query = parsed_query(evaluation_schemas.EvaluationListQuery, request)
    evaluator = request.app[EVALUATIONS].evaluator
    page = await evaluator.page(EvaluationQuery(**query.model_dump()))
    return answers.respond(
        evaluation_schemas.EvaluationList(
            data=[evaluation_answers.summary(item) for item in page.items], count=page.count
        )
    )


async def show(request: web.Request) -> web.Response:
    """Show an evaluation as it is now, with its report once there is one."""
    evaluation = await request.app[EVALUATIONS].evaluator.get(request.match_info["id"])
    response = await _answered(request, evaluation)
    response.set_status(HTTPStatus.OK)
    return response


async def cancel(request: web.Request) -> web.Response:
    """Cancel an evaluation that waits or runs; one that has ended is left as it is."""
    evaluation = await request.app[EVALUATIONS].evaluator.cancel(request.match_info["id"])
    request[AUDIT] = {"evaluation": evaluation.id, "partial_path": evaluation.partial_path}
    return answers.respond(evaluation_answers.summary(evaluation))


async def events(request: web.Request) -> web.StreamResponse:
    """Follow an evaluation as server-sent events: `state`, `progress` and at last `done`.

    `Last-Event-ID` takes up where a broken connection was; a comment comes every 15 seconds.
    """
    evaluation = await request.app[EVALUATIONS].evaluator.get(request.match_info["id"])
    return await stream(request, evaluation)


async def page(request: web.Request) -> web.StreamResponse:
    """Read the report as a page, which needs no network and no script."""
    evaluation = await request.app[EVALUATIONS].evaluator.get(request.match_info["id"])
    store, reports = request.app[LIBRARY].store, request.app[EVALUATIONS].reports
    content = await store.run(reports.read, evaluation.id, PAGE)
    if content is None:
        raise EvaluationNotFound("Report")
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "private, max-age=3600",
    }
    return web.Response(body=content, headers=headers)
