"""`search doctor`: what this machine trains with."""

from __future__ import annotations

from search.cli.output import make_console


def doctor() -> None:
    """Say which training step serves here, why, and how fast each is.

    Example: search doctor
    """
    from search.cli.tables import FittedTable

    console = make_console()
    with console.status("Measuring"):
        import torch

        from search.training.doctor import measure_speeds
        from search.workers.local_pool import default_worker_count
        from search_models import native

        table = FittedTable(gap=3)
        for heading in ("network", "native, images a second", "PyTorch", "times as fast"):
            table.add_column(heading, justify="right")
        for speed in measure_speeds():
            native_speed = "–" if speed.native is None else f"{speed.native:,.0f}"
            ratio = "–" if speed.native is None else f"{speed.native / speed.pytorch:.1f}"
            table.add_row(speed.network, native_speed, f"{speed.pytorch:,.0f}", ratio)
    kernel = native.kernel()
    if kernel is None:
        console.print(f"CPU      PyTorch, because {native.unavailable_reason()}")
        console.print("         For the native step install a C++ compiler (as g++), then:")
        console.print("         uv sync --reinstall-package budget-search (pip: install again)")
    else:
        isas = ", ".join(native.available_isas())
        console.print(f"CPU      native step for {kernel.isa} (of {isas})")
    n_gpus = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(n_gpus))
    console.print(f"GPU      {names or 'none'}")
    console.print(f"workers  {default_worker_count()} by default, one thread each")
    console.print(f"PyTorch  {torch.__version__}\n")
    console.print(table)
    console.print("\nWhole training steps with augmentation on one thread, medians of three.")
