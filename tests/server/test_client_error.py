from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from flrplan.errors import LabelError, ModelError
from flrplan.server.client_error import errors_for_client


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (LabelError("draw the liver"), 400, MONAILabelError.INVALID_INPUT),
        (ModelError("the folder is damaged"), 500, MONAILabelError.APP_INFERENCE_FAILED),
    ],
)
def test_an_error_reaches_the_client_as_its_message(error: Exception, status: int, kind: MONAILabelError) -> None:
    app = FastAPI()

    @app.get("/")
    def fail() -> None:
        with errors_for_client():
            raise error

    answer = TestClient(app).get("/")
    assert (answer.status_code, answer.json()) == (status, {"detail": str(error)})
    with pytest.raises(MONAILabelException) as caught, errors_for_client():
        raise error
    assert (caught.value.error, caught.value.msg) == (kind, str(error))


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), errors_for_client():
        _ = 1 // 0
