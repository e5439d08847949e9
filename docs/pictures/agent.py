# ruff: noqa: D103, T201 - a program that prints
"""The program in the picture on the first page: an agent that takes three expensive steps."""

import anyio

from kassette_io import Context, LocalStorage, workflow


async def ask_model(step: str) -> str:
    print(f"  {step:9} asking the model …", flush=True)
    if step == "write" and await anyio.Path("slow").exists():
        await anyio.sleep_forever()  # a model that takes its time
    return f"the result of {step}"


@workflow(storage=LocalStorage("journals"))
async def report(ctx: Context) -> str:
    text = ""
    for step in ("plan", "research", "write"):

        def replayed(_: str, step: str = step) -> None:
            print(f"  {step:9} replayed from the journal")

        text = await ctx.step(step, ask_model, step, on_replay=replayed)
    return text


async def main() -> None:
    outcome = await report.start(run_id="report-1")
    print(f"  {outcome.status}: {outcome.run_id}")


anyio.run(main)
