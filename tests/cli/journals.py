"""Journals as a directory holds them, written by hand in the reference's format; no assertions."""

from __future__ import annotations

T0 = "2026-01-31T12:00:00.000Z"
T1 = "2026-01-31T12:00:01.500Z"
T2 = "2026-01-31T12:00:02.000Z"
DEADLINE = "2999-01-01T00:00:00.000Z"

START = f'{{"type":"start","session":1,"offset":0,"timestamp":"{T0}"}}\n'
START_2 = f'{{"type":"start","session":2,"offset":2,"timestamp":"{T2}"}}\n'
SUSPEND = (
    f'{{"type":"suspend","session":1,"offset":1,"timestamp":"{T1}",'
    f'"reason":"Waiting for event: approval","waitingFor":"approval","timeout":"{DEADLINE}"}}\n'
)

COMPLETED = (
    f'{{"type":"start","session":1,"offset":0,"timestamp":"{T0}","version":"v1",'
    '"metadata":{"ticket":7}}\n'
    f'{{"type":"step","session":1,"offset":1,"timestamp":"{T1}","stepId":"llm","name":"llm",'
    '"result":{"text":"héllo 👍","n":[1,2.5,null,true]}}\n'
    f'{{"type":"step","session":1,"offset":2,"timestamp":"{T1}","stepId":"llm#2","name":"llm",'
    '"result":"second"}\n'
    f'{{"type":"complete","session":1,"offset":3,"timestamp":"{T2}"}}\n'
)
FAILED = (
    START + f'{{"type":"error","session":1,"offset":1,"timestamp":"{T1}",'
    '"message":"no such order: “7”","name":"LookupError","stack":"Traceback…\\n  line\\n"}\n'
)
CANCELLED = (
    START + SUSPEND + START_2 + f'{{"type":"cancel","session":2,"offset":3,"timestamp":"{T2}",'
    '"reason":"suspend_timeout_expired"}\n'
)
SUSPENDED = START + SUSPEND
SUSPENDED_THEN_START = START + SUSPEND + START_2
RESUMED = (
    START
    + SUSPEND
    + START_2
    + f'{{"type":"resume","session":2,"offset":3,"timestamp":"{T2}","eventName":"approval",'
    '"value":{"ok":true}}\n'
)
UNKNOWN_FIELDS = (
    f'{{"type":"start","session":1,"offset":0,"timestamp":"{T0}","host":{{"name":"a"}}}}\n'
    f'{{"type":"step","session":1,"offset":1,"timestamp":"{T1}","cost":0.25,"stepId":"llm",'
    '"name":"llm","result":1}\n'
    f'{{"type":"complete","session":1,"offset":2,"timestamp":"{T2}","by":"me"}}\n'
)
SURROGATES = (
    START + f'{{"type":"step","session":1,"offset":1,"timestamp":"{T1}","stepId":"s","name":"s",'
    '"result":"cut \\ud83d"}\n'
    f'{{"type":"error","session":1,"offset":2,"timestamp":"{T1}","message":"cut \\ud83d"}}\n'
)
DAMAGED = START + '{"damaged"\n' + START_2
TORN = START + '{"type":"step","session":1,"offs'
NEVER_WRITTEN = '{"type":"start","ses'

STATUS_LINES = {
    "cancelled": '{"status":"cancelled","reason":"suspend_timeout_expired"}\n',
    "completed": '{"status":"completed"}\n',
    "failed": '{"status":"failed","message":"no such order: “7”","name":"LookupError",'
    '"stack":"Traceback…\\n  line\\n"}\n',
    "never-written": '{"status":"unsettled"}\n',
    "resumed": '{"status":"unsettled"}\n',
    "suspended": f'{{"status":"suspended","waitingFor":"approval","timeout":"{DEADLINE}"}}\n',
    "suspended-then-start": f'{{"status":"suspended","waitingFor":"approval",'
    f'"timeout":"{DEADLINE}"}}\n',
    "surrogates": '{"status":"failed","message":"cut \\ud83d"}\n',
    "torn": '{"status":"unsettled"}\n',
    "unknown-fields": '{"status":"completed"}\n',
}
"""The golden answer of ``status`` for every run that can be read."""

JOURNALS = {
    "cancelled": CANCELLED,
    "completed": COMPLETED,
    "damaged": DAMAGED,
    "failed": FAILED,
    "never-written": NEVER_WRITTEN,
    "resumed": RESUMED,
    "suspended": SUSPENDED,
    "suspended-then-start": SUSPENDED_THEN_START,
    "surrogates": SURROGATES,
    "torn": TORN,
    "unknown-fields": UNKNOWN_FIELDS,
}


def long_journal(steps: int) -> str:
    """Give a journal of a kilobyte a step."""
    lines = [START]
    for offset in range(1, steps + 1):
        step = "s" if offset == 1 else f"s#{offset}"
        lines.append(
            f'{{"type":"step","session":1,"offset":{offset},"timestamp":"{T1}",'
            f'"stepId":"{step}","name":"s","result":"{"x" * 1000}"}}\n'
        )
    return "".join(lines)
