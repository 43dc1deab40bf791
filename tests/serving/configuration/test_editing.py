from __future__ import annotations

import javaproperties
import pytest

from serving.configuration import gson
from serving.configuration.editing import EntryChange, edit_properties

TUNED = EntryChange(("pets", "1.0"), {"batchSize": 16}, {"marName": "pets.mar"})
MODELS = """models = {\\
  "pets" : {\\
    "1.0" : { "batchSize" : "8" ,\\
       "minWorkers": 1 } } , \\
  "zoo" : {"1.0": {"batchSize": 2}} }
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("job_queue_size=1\n", "job_queue_size=7\n"),
        ("job_queue_size : 1\r\n# c\r\n", "job_queue_size : 7\r\n# c\r\n"),
        ("  job_queue_size  1", "  job_queue_size  7"),
        ("job_queue_size=1\njob_queue_size=2\n", "job_queue_size=1\njob_queue_size=7\n"),
        ("job_queue_size=1\\\n  0\nx=1\n", "job_queue_size=7\nx=1\n"),
        ("job_queue_size\nx=1\n", "job_queue_size=7\nx=1\n"),
        ("x=1\\\n", "x=1\\\n\njob_queue_size=7\n"),
        ("x=1\\", "x=1\\\n\njob_queue_size=7\n"),
        ("x=1\\\\\n", "x=1\\\\\njob_queue_size=7\n"),
        ("# c\\\r", "# c\\\rjob_queue_size=7\r"),
        ("job_queue_size = 7 \n", "job_queue_size = 7\n"),
        ("", "job_queue_size=7\n"),
    ],
)
def test_edit_properties_changes_the_value_in_its_place(before: str, after: str) -> None:
    assert edit_properties(before, {"job_queue_size": "7"}) == after
    assert javaproperties.loads(after)["job_queue_size"] == "7"
    assert edit_properties(after, {"job_queue_size": "7"}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("vmargs = -Xmx1g\n", "vmargs=-Xmx2g -Dx=C:\\d\n"),
        ("vmargs: -Xmx2g -Dx=C:\\d\n", "vmargs=-Xmx2g -Dx=C:\\d\n"),
        ("vmargs=-Xmx1g \\\n -Dx=1\ny=1\n", "vmargs=-Xmx2g -Dx=C:\\d\ny=1\n"),
        ("", "vmargs=-Xmx2g -Dx=C:\\d\n"),
    ],
)
def test_edit_properties_writes_vmargs_as_the_command_reads_them(before: str, after: str) -> None:
    assert edit_properties(before, {"vmargs": "-Xmx2g -Dx=C:\\d"}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MODELS, MODELS.replace('"8"', "16")),
        ("models={'pets':{1.0:{batchSize=8}}}\n", "models={'pets':{1.0:{batchSize=16}}}\n"),
        (
            'models={"pets":{"1.0":{"x":1}}}\n',
            'models={"pets":{"1.0":{"x":1,"batchSize":16}}}\n',
        ),
        (
            'models={"pets": {"1.0": {"x": 1}, "2.0": {}}}\n',
            'models={"pets": {"1.0": {"x": 1, "batchSize": 16}, "2.0": {}}}\n',
        ),
        (
            'models={"zoo":{}}\n',
            'models={"zoo":{},"pets":{"1.0":{"marName":"pets.mar","batchSize":16}}}\n',
        ),
        ("models={}\n", 'models={"pets":{"1.0":{"marName":"pets.mar","batchSize":16}}}\n'),
        ("", 'models={"pets":{"1.0":{"marName":"pets.mar","batchSize":16}}}\n'),
        ('models={"p\\u0065ts":{"1.0":{"batchSize":1\\\n 2}}}', 'models={"p\\u0065ts":{"1.0":{"batchSize":16}}}'),
        ('models=[["pets",{"1.0":{}}]]\n', 'models={"pets":{"1.0":{"marName":"pets.mar","batchSize":16}}}\n'),
        ('models={"pets":[]}\n', 'models={"pets":{"1.0":{"marName":"pets.mar","batchSize":16}}}\n'),
    ],
)  # fmt: skip
def test_edit_properties_changes_one_number_of_the_json(before: str, after: str) -> None:
    edited = edit_properties(before, {}, {"models": [TUNED]})
    assert edited == after
    models = gson.parse(javaproperties.loads(edited)["models"]).plain()
    assert models["pets"]["1.0"]["batchSize"] == "16"
    assert edit_properties(edited, {}, {"models": [TUNED]}) == edited
