"""Read OIDC providers from the environment."""

import pytest

from models.platform.errors import ConfigurationError
from models.platform.oidc_providers import load_oidc_providers
from models.platform.settings import load_settings

CORP = {
    "SANGHA_OIDC_PROVIDERS": "corp",
    "SANGHA_OIDC_CORP_ISSUER": "https://id.example.com/realm",
    "SANGHA_OIDC_CORP_CLIENT_ID": "sangha",
    "SANGHA_OIDC_CORP_CLIENT_SECRET": "hunter2",
}


def test_providers_are_read_from_the_environment(monkeypatch):
    # Given an environment with a provider
    for name, value in CORP.items():
        monkeypatch.setenv(name, value)
    # When the settings are loaded
    (corp,) = load_settings().oidc_providers
    # Then the provider is there, and its secret is not shown
    assert (corp.name, corp.issuer, corp.label) == ("corp", "https://id.example.com/realm", "Corp")
    assert corp.scopes == "openid email profile"
    assert "hunter2" not in repr(corp)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"SANGHA_OIDC_PROVIDERS": "corp,corp"}, "SANGHA_OIDC_PROVIDERS"),
        ({"SANGHA_OIDC_PROVIDERS": "corp,../x"}, "SANGHA_OIDC_PROVIDERS"),
        ({"SANGHA_OIDC_PROVIDERS": "exchange"}, "SANGHA_OIDC_PROVIDERS"),
        ({"SANGHA_OIDC_PROVIDERS": ""}, "SANGHA_OIDC_CORP_ISSUER"),
        ({"SANGHA_OIDC_CORP_ISSUER": ""}, "SANGHA_OIDC_CORP_ISSUER"),
        ({"SANGHA_OIDC_CORP_ISSUER": "http://id.example.com"}, "SANGHA_OIDC_CORP_ISSUER"),
        ({"SANGHA_OIDC_CORP_ISSUER": "https://me:hunter2@id.example.com"}, "SANGHA_OIDC_CORP_ISSUER"),
        ({"SANGHA_OIDC_CORP_CLIENT_ID": " "}, "SANGHA_OIDC_CORP_CLIENT_ID"),
        ({"SANGHA_OIDC_CORP_SCOPES": "email"}, "SANGHA_OIDC_CORP_SCOPES"),
        ({"SANGHA_OIDC_CORP_SECRET": "hunter2"}, "SANGHA_OIDC_CORP_SECRET"),
    ],
)
def test_a_malformed_variable_is_reported_in_one_line_without_the_secret(changes, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_oidc_providers(CORP | changes)

    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
