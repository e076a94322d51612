"""The append script of the version before claims, which runs beside the present one during a rolling deploy."""

from collections.abc import Sequence
from typing import Any

import redis

from models.journal import journal
from models.journal.events import Event
from models.journal.keys import hash_key, stream_key
from models.journal.shards import SHARD_LENGTH, shard_keys

APPEND = """
local attempt, first, force, ended = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[6] == '1'
local stored = redis.call('HMGET', KEYS[1], 'fence', 'last', 'server')
local fence, last, server = tonumber(stored[1] or -1), tonumber(stored[2] or -1), stored[3]
if fence > attempt then return {'fenced', last} end
if not force then
    if fence < attempt then return {'lost', last} end
    if last + 1 < first then return {'lost', last} end
else
    server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    if last + 1 < first then redis.call('DEL', KEYS[2]) end
end
local lines, sequence, begin = {}, first, nil
for index = 7, #ARGV, 2 do
    if sequence > last then
        begin = begin or sequence
        redis.call('XADD', KEYS[2], (sequence + 1) .. '-0', 'e', ARGV[index], 'n', ARGV[index + 1])
        lines[#lines + 1] = ARGV[index]
        last = sequence
    end
    sequence = sequence + 1
end
redis.call('HSET', KEYS[1], 'fence', attempt, 'last', last, 'server', server)
if force or ended or begin == 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
    redis.call('EXPIRE', KEYS[2], ARGV[4])
end
if begin and (attempt > 0 or begin > 0 or ended) then
    local all = table.concat(lines, '\\n')
    if #all > 65536 then all = '' end -- too large for the shard: followers of the job read the stream
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'j', KEYS[1], 's', begin, 'e', all)
end
return {'ok', last, server == stored[3] and 1 or 0}
"""


def append(client: redis.Redis, job_id: str, attempt: int, events: Sequence[Event], *, force: bool = True) -> Any:
    """Append events like a worker of that version. Returns the script's reply."""
    first = events[0].sequence if events else 0
    ended = bool(events) and events[-1].ends
    arguments: list[Any] = [attempt, first, int(force), journal.TTL, SHARD_LENGTH, int(ended)]
    for event in events:
        arguments += (event.data, event.tokens)
    keys = [hash_key(job_id), stream_key(job_id), shard_keys()[0]]
    return client.eval(APPEND, len(keys), *keys, *arguments)
