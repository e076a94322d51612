"""The known models of a request."""

from pipelines.agents.agent_turns import is_agent
from pipelines.requests.serving import Serving
from web.api.request import Request
from web.http.threads import run_in_thread


async def serving_for(request: Request, name: str | None = None) -> Serving:
    """Return the known models; read now if the request names one that was not known a moment ago."""
    cache = request.platform.serving
    state = cache.state() if cache.is_ready() else await run_in_thread(cache.state)
    if not is_agent(name) and state.models.find(name) is None:
        state = await run_in_thread(cache.renew)
    return Serving(request.platform.settings, state.models)


def serving_now(request: Request) -> Serving:
    """Return the known models, in a thread that may wait."""
    return Serving(request.platform.settings, request.platform.serving.state().models)
