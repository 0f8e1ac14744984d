"""Settings come from the environment, are checked, and are documented in full."""

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import Settings, settings_markdown, settings_summary


def test_the_documentation_is_what_the_code_says(root):
    assert (root / "docs" / "settings.md").read_text(encoding="utf-8") == settings_markdown()


def test_every_setting_is_described_with_its_variable():
    text = settings_markdown()
    for name, field in Settings.model_fields.items():
        assert f"| `CCNET_{name.upper()}` |" in text
        assert field.description is not None
        assert field.description.endswith(".")


def test_variables_are_read(monkeypatch):
    for name, value in (("PORT", "9000"), ("MODEL", "mine"), ("API_KEYS", " a, b ,"), ("CHECKPOINTS", "/models")):
        monkeypatch.setenv(f"CCNET_{name}", value)
    settings = Settings()
    assert (settings.port, settings.model, str(settings.checkpoints)) == (9000, "mine", "/models")
    assert [key.get_secret_value() for key in settings.api_keys] == ["a", "b"]


def test_an_empty_variable_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("CCNET_MODEL", "")
    monkeypatch.setenv("CCNET_PORT", "")
    assert (Settings().model, Settings().port) == (None, 8000)


def test_keys_are_never_shown():
    settings = Settings(api_keys=(SecretStr("very-secret"),))
    assert "very-secret" not in repr(settings)
    assert settings_summary(settings)["api_keys"] == 1


@pytest.mark.parametrize(
    "values", [{"port": 70_000}, {"device": "tpu"}, {"ensemble_size": 0}, {"ensemble_size": 65}, {"max_body_bytes": 0}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Settings(**values)


def test_a_request_must_fit_the_queue():
    with pytest.raises(ValidationError, match="CCNET_MAX_QUEUE_PASSES"):
        Settings(max_request_passes=10, max_queue_passes=9)
    with pytest.raises(ValidationError, match="CCNET_MAX_HELD_BYTES"):
        Settings(max_body_bytes=10, max_held_bytes=9)
