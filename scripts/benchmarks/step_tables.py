"""What `training_step.py` measured, as tables in Markdown."""

from __future__ import annotations

from typing import Any


def print_case(case: dict[str, Any]) -> None:
    flops, kilobytes = case["step_flops"] / 1e6, case["map_bytes"] / 1e3
    print(
        f"\n{case['network']}, batch {case['batch']}: {flops:.2f} MFLOP and {kilobytes:.0f} KB of "
        "maps an image"
    )
    limits = (
        (case["peak_gflops"], "matrix product", "GFLOP/s"),
        (case["bandwidth_gb"], "memory of the size of the maps", "GB/s"),
        (case["limit_microseconds"], "limit", "µs an image"),
    )
    print(
        "; ".join(
            f"{title} {values['all']:.0f} {unit}, held to AVX2 {values['avx2']:.0f}"
            for values, title, unit in limits
        )
    )
    print("\n| way | samples/s | least – most | share of peak | of limit | convolution |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in case["ways"].items():
        rate = row["rate"]
        convolution = f"{row['convolution_share']:.0%}" if "convolution_share" in row else ""
        print(
            f"| {name} | {rate['median']:,.0f} | {rate['least']:,.0f} – {rate['most']:,.0f} "
            f"| {row['share']:.0%} | {row['share_of_limit']:.0%} | {convolution} |"
        )
    print("\n| ratio of rounds | median | least – most |")
    print("| --- | ---: | ---: |")
    for name, ratio in case["ratios"].items():
        print(f"| {name} | {ratio['median']:.2f} | {ratio['least']:.2f} – {ratio['most']:.2f} |")
    for name, row in case["ways"].items():
        if "stages" in row:
            parts = ", ".join(f"{stage} {value:.2f}" for stage, value in row["stages"].items())
            print(f"\n{name}, µs an image: {parts}")


def print_report(report: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for case in report["cases"]:
        print_case(case)
    if report["workers"]:
        print("\n| two workers | samples/s | × one (least – most) |")
        print("| --- | ---: | ---: |")
    for name, row in report["workers"].items():
        ratio = row["ratio"]
        print(
            f"| {name} | {row['rate']['median']:,.0f} "
            f"| {ratio['median']:.2f} ({ratio['least']:.2f} – {ratio['most']:.2f}) |"
        )
    if report["scaling"]:
        print("\n| native v36 | µs an image | GFLOP/s |")
        print("| --- | ---: | ---: |")
    for name, row in report["scaling"].items():
        print(f"| {name} | {row['microseconds']:.1f} | {row['gflops']:.0f} |")
