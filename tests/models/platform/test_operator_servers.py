"""Operators' MCP servers are read from the environment, and a malformed variable is reported in one line."""

import pytest

from models.platform.errors import ConfigurationError
from models.platform.operator_servers import OperatorServer, load_operator_servers, operator_server_variables
from models.platform.settings import load_settings

SEARCH = {"SANGHA_MCP_SERVERS": "search", "SANGHA_MCP_SERVER_SEARCH_URL": "https://mcp.example.com/mcp"}


def test_no_variables_are_no_servers():
    assert load_operator_servers({}) == ()


def test_servers_are_read_with_their_options():
    environment = SEARCH | {
        "SANGHA_MCP_SERVERS": "Search, files",
        "SANGHA_MCP_SERVER_SEARCH_AUTHORIZATION": "hunter2",
        "SANGHA_MCP_SERVER_SEARCH_ALLOW": "find, read",
        "SANGHA_MCP_SERVER_SEARCH_APPROVAL": "writes",
        "SANGHA_MCP_SERVER_FILES_COMMAND": "npx -y server-files '/my files'",
    }

    assert load_operator_servers(environment) == (
        OperatorServer("search", "https://mcp.example.com/mcp", "", "hunter2", ("find", "read"), "writes"),
        OperatorServer("files", "", "npx -y server-files '/my files'"),
    )


def test_settings_have_the_servers_of_the_environment(monkeypatch):
    for name, value in SEARCH.items():
        monkeypatch.setenv(name, value)

    assert load_settings().mcp_servers == (OperatorServer("search", "https://mcp.example.com/mcp"),)


def test_variables_of_servers_are_read_back():
    servers = (OperatorServer("a", "https://a/mcp", "", "key", ("x",), "never"), OperatorServer("b", "", "program -x"))

    assert load_operator_servers(operator_server_variables(servers)) == servers


def test_a_server_does_not_show_its_secrets():
    assert "hunter2" not in repr(OperatorServer("a", "", "program --key hunter2", "hunter2"))


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [
        ("SANGHA_MCP_SERVERS", "search,search", "names a server twice"),
        ("SANGHA_MCP_SERVERS", "sangha", "is not agents or sangha"),
        ("SANGHA_MCP_SERVERS", "1a", "begins with a letter"),
        ("SANGHA_MCP_SERVERS", "search,other", "set one of SANGHA_MCP_SERVER_OTHER_URL"),
        ("SANGHA_MCP_SERVER_SEARCH_COMMAND", "program", "set one of"),
        ("SANGHA_MCP_SERVER_SEARCH_URL", "ftp://mcp.example.com", "https://…"),
        ("SANGHA_MCP_SERVER_SEARCH_URL", "https://me:hunter2@mcp.example.com", "AUTHORIZATION"),
        ("SANGHA_MCP_SERVER_SEARCH_AUTHORIZATION", "hunter2\nX-Other: 1", "printable ASCII"),
        ("SANGHA_MCP_SERVER_SEARCH_APPROVAL", "sometimes", "always, never, writes"),
        ("SANGHA_MCP_SERVER_SERACH_ALLOW", "x", "names no server"),
    ],
)
def test_a_malformed_variable_is_one_line_that_names_it_and_shows_no_secret(name, value, should):
    with pytest.raises(ConfigurationError, match=should) as caught:
        load_operator_servers(SEARCH | {name: value})
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_command_that_cannot_be_parsed_is_an_error():
    environment = {"SANGHA_MCP_SERVERS": "files", "SANGHA_MCP_SERVER_FILES_COMMAND": "program 'unclosed"}

    with pytest.raises(ConfigurationError, match="cannot be parsed"):
        load_operator_servers(environment)
