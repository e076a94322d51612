"""Merge the metrics of several processes into one text, with a label `process`."""

from collections.abc import Mapping

#: The end of a text in OpenMetrics.
END = "# EOF"


def merge(texts: Mapping[str, str]) -> str:
    """Merge texts in Prometheus' format, or all in OpenMetrics, by the name of their process.

    The samples of a metric must follow each other, so they are collected by its name. One that has a label `process`
    keeps it.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts.items():
        name = ""
        for line in text.splitlines():
            if line.startswith("# ") and line != END:
                name = line.split(" ", 3)[2]
                heads.setdefault(name, [])
                if name not in samples:
                    heads[name].append(line)
            elif line and line != END:
                samples.setdefault(name, []).append(with_process(line, process))
        for name in heads:
            samples.setdefault(name, [])
    lines = [line for name, head in heads.items() for line in (*head, *samples[name])]
    ends = any(text.endswith(f"{END}\n") for text in texts.values())
    return "\n".join([*lines, *([END] if ends else []), ""])


def with_process(sample: str, process: str) -> str:
    """Return a sample's line with the label."""
    brace, space = sample.find("{"), sample.find(" ")
    if brace == -1 or brace > space:  # no labels; what follows may be an exemplar, which has
        return f'{sample[:space]}{{process="{process}"}}{sample[space:]}'
    if sample.startswith("{process=", brace):
        return sample
    return f'{sample[:brace]}{{process="{process}",{sample[brace + 1 :]}'
