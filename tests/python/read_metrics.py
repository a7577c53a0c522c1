"""Reads what /metrics answered, with the parser of Prometheus' own Python client.

    python read_metrics.py FILE

Prints one JSON object per sample: name, labels, value, and the help, type and name of its
family. Ends with 1 when the names are not as Prometheus wants them.
"""

import json
import re
import sys

from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Units that are not base units, as the last part of a name.
OTHER_UNITS = {"ms", "milliseconds", "minutes", "hours", "kilobytes", "megabytes", "kib", "mib", "percent"}


def objections(family):
    """Yields what is wrong with one family."""
    if not NAME.fullmatch(family.name):
        yield "is not snake case"
    if not family.documentation:
        yield "has no help"
    if OTHER_UNITS & set(family.name.split("_")):
        yield "is not in base units"
    for sample in family.samples:
        if family.type == "counter" and not sample.name.endswith("_total"):
            yield f"is a counter and has a sample `{sample.name}`"


def main(path):
    with open(path, encoding="utf-8") as file:
        families = list(text_string_to_metric_families(file.read()))
    wrong = [f"`{family.name}` {objection}" for family in families for objection in objections(family)]
    for family in families:
        about = {"family": family.name, "help": family.documentation, "type": family.type}
        for sample in family.samples:
            print(json.dumps({"name": sample.name, "labels": sample.labels, "value": sample.value, **about}))
    sys.exit("\n".join(wrong) if wrong else 0)


main(sys.argv[1])
