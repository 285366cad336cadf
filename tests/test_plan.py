"""What follows from a configuration, where the generated text doesn't show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nginx_acme.acme import presets
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.source import Source, read_source
from nginx_acme.plan import Facts, Issuer, Plan, concerns_us, make_plan
from nginx_acme.work import from_json, to_json, work_of

MAIN = "/etc/nginx/nginx.conf"
TLS = "listen 443 ssl; server_name example.com; acme;"


def read(text: str) -> Source:
    """A configuration of one file."""
    return read_source(MAIN, lambda _: text.encode(), lambda _: [])


def plan_of(http: str, main: str = "", *, lacks: frozenset[str] = frozenset()) -> Plan:
    """The plan of a configuration, for an nginx without some modules."""
    text = f"{main} events {{}} http {{ {http} }}"
    return make_plan(read(text), Facts((1, 30, 0), "host.example.com", lacks=lacks))


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        pytest.param(f"server {{ {TLS} }}", False, id="nothing else"),
        pytest.param(
            f"server {{ listen 80; return 301 https://$host$request_uri; }} server {{ {TLS} }}",
            False,
            id="a redirect",
        ),
        pytest.param(
            "server { listen 80; location /.well-known/acme-challenge/ { root /srv; }"
            f" location / {{ return 301 https://x; }} }} server {{ {TLS} }}",
            False,
            id="a redirect with certbot's location",
        ),
        pytest.param(
            f"server {{ listen 80; root /srv; }} server {{ {TLS} }}", True, id="a plain site"
        ),
        pytest.param(
            f"server {{ listen 8080; location / {{ proxy_pass http://x; }} }}server {{ {TLS} }}",
            True,
            id="a plain proxy on another port",
        ),
        pytest.param(
            f"server {{ listen 80; {TLS} root /srv; }}", True, id="one server for both ports"
        ),
        pytest.param(
            "server { listen 8443 ssl; ssl_certificate a; ssl_certificate_key a; }"
            f"server {{ {TLS} }}",
            True,
            id="a TLS site with its own certificate",
        ),
    ],
)
def test_serves_already(http: str, expected: bool) -> None:  # noqa: FBT001
    """A start waits only where nobody would miss anything meanwhile."""
    assert plan_of(http).serves_already is expected


def test_stream_is_served_already() -> None:
    """A stream server without `acme` is kept waiting for nothing."""
    main = "stream { server { listen 53; proxy_pass 127.0.0.1:5353; } }"
    assert plan_of(f"server {{ {TLS} }}", main).serves_already


def test_settings() -> None:
    """Settings may stand in the main context and in http."""
    plan = plan_of(
        f"acme_start_wait 1m; acme_redirect off; server {{ {TLS} }}", "acme_state_path state/here;"
    )
    assert plan.settings.state_path == "/etc/nginx/state/here"
    assert plan.settings.start_wait == 60
    assert plan.settings.redirect is False


def test_settings_of_the_time_after() -> None:
    """What holds once nginx runs is off or on, and hooks are programs by their absolute paths."""
    said = (
        "acme_agent off; acme_issue off; acme_challenge_answer any;"
        " acme_hook failed tell; acme_hook failed /bin/mail; acme_hook deployed tell;"
    )
    settings = plan_of(f"{said} server {{ {TLS} }}").settings
    assert (settings.agent, settings.issue, settings.answer_any) == (False, False, True)
    assert [(hook.event, hook.program) for hook in settings.hooks] == [
        ("failed", "/etc/nginx/tell"),
        ("failed", "/bin/mail"),
        ("deployed", "/etc/nginx/tell"),
    ]


def test_default_issuer() -> None:
    """An issuer named `default` is that of `acme` without a name."""
    declared = "acme_issuer default { uri https://ca.example.com/dir; }"
    (certificate,) = plan_of(f"{declared} server {{ {TLS} }}").certificates
    assert certificate.issuer.directory_url == "https://ca.example.com/dir"
    assert not certificate.issuer.public
    assert not certificate.issuer.accept_terms


def test_built_in_issuer_with_more() -> None:
    """A built-in issuer that is declared again stays what it is, with what is added."""
    declared = "acme_issuer letsencrypt { contact a@example.com; profile shortlived; }"
    (certificate,) = plan_of(f"{declared} server {{ {TLS} }}").certificates
    assert certificate.issuer.contacts == ("mailto:a@example.com",)
    assert certificate.issuer.public
    assert certificate.issuer.accept_terms
    assert certificate.profile == "shortlived"


def test_built_in_name_with_another_uri() -> None:
    """Another `uri` under a built-in name is another authority, with terms of its own."""
    declared = "acme_issuer letsencrypt { uri https://ca.example.com/dir; }"
    (certificate,) = plan_of(f"{declared} server {{ {TLS} }}").certificates
    assert not certificate.issuer.public
    assert not certificate.issuer.accept_terms


def test_reordered_names_are_the_same_certificate() -> None:
    """What makes a certificate is the set of its names."""
    one = plan_of("server { listen 443 ssl; server_name a.example.com b.example.com; acme; }")
    two = plan_of("server { listen 443 ssl; server_name B.example.com a.example.com.; acme; }")
    assert one.certificates[0].identity == two.certificates[0].identity


def test_key_types_of_all_servers() -> None:
    """Servers that share a certificate get the key types that each asks for."""
    plan = plan_of(
        "server { listen 443 ssl; server_name example.com; acme key=rsa:2048; }"
        "server { listen 444 ssl; server_name example.com; acme key=ecdsa:256 key=rsa:2048; }"
    )
    assert [c.key_types for c in plan.certificates] == [("rsa:2048", "ecdsa:256")]
    assert [m.key_types for m in plan.managed] == [("rsa:2048",), ("ecdsa:256", "rsa:2048")]


@pytest.mark.parametrize(
    ("names", "optional"),
    [
        pytest.param(".example.com", {"www.example.com"}, id="added by us"),
        pytest.param(".example.com www.example.com", set(), id="said, too"),
    ],
)
def test_optional_names(names: str, optional: set[str]) -> None:
    """`www` of a leading dot is asked for if it has an address; one that is said always is."""
    plan = plan_of(f"server {{ listen 443 ssl; server_name {names}; acme; }}")
    assert plan.certificates[0].optional == optional


@pytest.mark.parametrize(
    ("settings", "key_type"),
    [
        pytest.param("", "ecdsa:256", id="nothing said"),
        pytest.param("ssl_ciphers HIGH:!aNULL:!MD5;", "ecdsa:256", id="a group"),
        pytest.param("ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA;", "rsa:2048", id="RSA"),
        pytest.param("ssl_ciphers RSA+AESGCM:kRSA;", "rsa:2048", id="groups of RSA"),
        pytest.param("ssl_ciphers HIGH:!ECDSA;", "rsa:2048", id="all but ECDSA"),
        pytest.param(
            "ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256;",
            "ecdsa:256",
            id="both",
        ),
        pytest.param("ssl_protocols TLSv1.3; ssl_ciphers AES256-SHA;", "ecdsa:256", id="TLS 1.3"),
    ],
)
def test_default_key(settings: str, key_type: str) -> None:
    """Nobody is refused for a kind of key that the ciphers have no use for."""
    plan = plan_of(f"{settings} server {{ {TLS} }}")
    assert plan.certificates[0].key_types == (key_type,)


def test_proxy_protocol_of_another_server() -> None:
    """What belongs to an address is known, whichever server says it."""
    plan = plan_of(f"server {{ listen 80 proxy_protocol; }} server {{ listen 80; {TLS} }}")
    assert [x.proxy_protocol for x in plan.listens] == [True]


def test_both_families_on_one_socket() -> None:
    """Of an address that another one holds as well, nothing is left to listen on."""
    plan = plan_of(
        "acme_http_listen 80 [::]:80 192.0.2.1:80 [2001:db8::1]:80 8080;"
        "server { listen [::]:80 ipv6only=off; } server { listen [::]:80; }"
        f"server {{ {TLS} }}"
    )
    shown = [(str(x.address), x.ipv6only) for x in plan.listens]
    assert shown == [("[::]:80", False), ("[2001:db8::1]:80", True), ("0.0.0.0:8080", True)]
    assert [str(x.address) for x in plan.added] == ["[2001:db8::1]:80", "0.0.0.0:8080"]


@pytest.mark.parametrize(
    ("names", "left", "warning"),
    [
        pytest.param("example.com localhost", ["example.com"], '"localhost"', id="no dot"),
        pytest.param("example.com ~^x", ["example.com"], "regular expression", id="regex"),
        pytest.param("example.com www.example.*", ["example.com"], "wildcard", id="trailing"),
        pytest.param("$hostname", ["host.example.com"], None, id="the host's name"),
        pytest.param("_ '' example.com", ["example.com"], None, id="no names"),
        pytest.param("bücher.de", ["xn--bcher-kva.de"], None, id="U-label"),
    ],
)
def test_what_is_left_out(names: str, left: list[str], warning: str | None) -> None:
    """What can't be certified is left out, with a warning that says why."""
    plan = plan_of(f"server {{ listen 443 ssl; server_name {names}; acme; }}")
    assert [name.value for name in plan.certificates[0].names] == left
    assert [warning is not None and warning in text for text, _ in plan.warnings] == [True] * (
        warning is not None
    )


def test_where_it_is_shown() -> None:
    """Each server that shows a certificate: with which of its names and keys, on which addresses."""
    plan = plan_of(
        "server { listen 443 ssl proxy_protocol; listen 443 quic; listen 80; server_name a.example.com;"
        " acme key=rsa:2048; }"
        "server { listen 443 ssl; listen 8443 ssl; server_name .b.example.com; acme; }"
        "server { listen 444 ssl; server_name a.example.com; acme key=ecdsa:256; }"
        "server { listen 445 ssl; ssl_certificate a; server_name c.example.com; }",
    )
    shown = [
        (
            one.certificate,
            one.names,
            one.key_types,
            [(str(x.address), x.quic, x.proxy_protocol) for x in one.listens],
        )
        for one in plan.shown
    ]
    assert shown == [
        (
            0,
            ("a.example.com",),
            ("rsa:2048",),
            [("0.0.0.0:443", False, True), ("0.0.0.0:443", True, False)],
        ),
        (
            1,
            ("b.example.com", "www.b.example.com"),
            ("ecdsa:256",),
            [("0.0.0.0:443", False, True), ("0.0.0.0:8443", False, False)],
        ),
        (0, ("a.example.com",), ("ecdsa:256",), [("0.0.0.0:444", False, False)]),
    ]


def test_starttls_shows_nothing_at_once() -> None:
    """A mail server that only begins TLS when it is asked has no address to look at."""
    mail = "mail { server { listen 143; protocol imap; starttls on; server_name a.b.c; acme; } }"
    (shown,) = plan_of("", main=f"{mail} ").shown
    assert (shown.kind, shown.listens) == ("mail", ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("http { server { acme; } }", True, id="acme"),
        pytest.param("http { acme_contact a@b; }", True, id="a setting alone"),
        pytest.param("http { server { acme off; } }", True, id="off alone"),
        pytest.param("http { map $a $b { acme 1; } }", False, id="a key of a map"),
        pytest.param("http { types { acme acme; } }", False, id="a type"),
        pytest.param("http { # acme;\n }", False, id="a comment"),
        pytest.param("http { acme_client x https://x; server { acme x; } }", False, id="Angie's"),
        pytest.param("http { acme_http_port 8080; }", False, id="what only Angie has"),
        pytest.param(
            "http { acme_issuer x { uri https://x; } server { acme_certificate x; } }",
            False,
            id="nginx's own module",
        ),
        pytest.param(
            "load_module modules/ngx_http_acme_module.so; http { acme_issuer x { } }",
            False,
            id="nginx's own module is loaded",
        ),
        pytest.param(
            "load_module modules/ngx_http_acme_module.so; http { server { acme; } }",
            True,
            id="nginx's own module is loaded for nothing",
        ),
        pytest.param("http { server { server_name acme.example.com; } }", False, id="a name"),
    ],
)
def test_concerns_us(text: str, expected: bool) -> None:  # noqa: FBT001
    """Whatever has no directive of ours goes to nginx untouched."""
    assert concerns_us(read(text)) is expected


def test_hooks() -> None:
    """They are told in the order of the configuration; a path is from its main file's folder."""
    plan = plan_of(
        "acme_hook failed /bin/mail; acme_hook deployed hooks/reload;",
        main="acme_hook deployed /bin/true;",
    )
    assert [(hook.event, hook.program) for hook in plan.settings.hooks] == [
        ("deployed", "/bin/true"),
        ("failed", "/bin/mail"),
        ("deployed", "/etc/nginx/hooks/reload"),
    ]


def test_hook_twice() -> None:
    """One program is told of one event once."""
    with pytest.raises(ConfigError, match='duplicate hook "hooks/x" for "failed"'):
        plan_of("acme_hook failed /etc/nginx/hooks/x; acme_hook failed hooks/x;")


def test_work_survives_json() -> None:
    """What is left to do reads back as it was written."""
    plan = plan_of(
        "acme_issuer corp { uri https://ca.example.com/dir; contact a@b.c; }"
        "server { listen 443 ssl; server_name .example.com; acme key=rsa:2048 profile=x; }"
        "server { listen 443 ssl; server_name printer 10.0.0.1 bücher.de; acme corp; }"
    )
    work = work_of(plan, options=("-c", MAIN), pid_file="/run/p", error_log="/var/log/e")
    assert from_json(to_json(work), "x") == work


@pytest.mark.parametrize(
    ("http", "main", "deaf"),
    [
        pytest.param(f"server {{ {TLS} }}", "", [], id="port 80 is added"),
        pytest.param(f"server {{ listen 80; }} server {{ {TLS} }}", "", [], id="port 80 is plain"),
        pytest.param(
            "server { listen 80 ssl; server_name example.com; acme; }",
            "",
            ["0.0.0.0:80, where this http"],
            id="TLS on port 80",
        ),
        pytest.param(
            "server { listen [::]:80 ssl ipv6only=off; server_name example.com; acme; }",
            "",
            ["0.0.0.0:80, where this http", "[::]:80, where this http"],
            id="TLS on one socket for both",
        ),
        pytest.param(
            f"server {{ {TLS} }}",
            "stream { server { listen 80; proxy_pass 192.0.2.1:80; } }",
            ["0.0.0.0:80, where this stream"],
            id="another protocol",
        ),
        pytest.param(
            "server { listen 80 ssl; server_name a.internal; acme local; }",
            "",
            [],
            id="nobody asks for challenges",
        ),
    ],
)
def test_deaf(http: str, main: str, deaf: list[str]) -> None:
    """Where challenges must be answered and a server says something else, that is said."""
    plan = plan_of(http, main)
    words = [f"no challenge is answered on {where} server speaks no plain HTTP" for where in deaf]
    assert [message for message, _ in plan.warnings] == words
    assert all(place is not None for _, place in plan.warnings)


def test_issuer_of_the_work() -> None:
    """What an issuer's block says of renewals reaches those who renew, by way of the disk."""
    declared = "uri https://ca.example/dir; renew_before 20d; all_names on;"
    plan = plan_of(
        f"acme_issuer corp {{ {declared} }}"
        " server { listen 443 ssl; server_name a.example; acme corp; }"
    )
    work = work_of(plan, options=(), pid_file="/p", error_log="stderr")
    (certificate,) = from_json(to_json(work), "work.json").certificates
    assert certificate.issuer.renew_before == 20 * 86400
    assert certificate.issuer.all_names


@pytest.mark.parametrize(
    ("block", "name", "url"),
    [
        pytest.param(None, "letsencrypt-staging", presets.LETSENCRYPT_STAGING, id="built in"),
        pytest.param(
            f"x {{ uri {presets.LETSENCRYPT}; }}",
            "letsencrypt-staging",
            presets.LETSENCRYPT_STAGING,
            id="of the same CA",
        ),
        pytest.param(
            "x { uri https://ca.example/dir; staging https://test.example/dir; }",
            "x-staging",
            "https://test.example/dir",
            id="declared",
        ),
        pytest.param(
            "x { uri https://ca.example/dir; staging https://ca.example/dir; account_key a.pem; }",
            "x",
            "https://ca.example/dir",
            id="itself",
        ),
        pytest.param("x { uri https://ca.example/dir; }", None, None, id="not known"),
    ],
)
def test_twin(block: str | None, name: str | None, url: str | None) -> None:
    """Where orders are rehearsed: as the CA is known, or as the block says, if at all."""
    declared = "" if block is None else f"acme_issuer {block}"
    acme = "acme;" if block is None else "acme x;"
    plan = plan_of(f"{declared} server {{ listen 443 ssl; server_name a.example.com; {acme} }}")
    twin = plan.issuers[0].twin()
    assert (twin and twin.name, twin and twin.directory_url) == (name, url)
    assert twin is None or twin.twin() == twin


def test_twin_has_a_key_of_its_own() -> None:
    """A key of the operator's is not shown to another CA (RFC 8555 §11.1); its type may be wanted."""
    for key, expected in (("/my.pem", "ecdsa:256"), ("rsa:2048", "rsa:2048")):
        issuer = Issuer("x", "https://ca.example/dir", public=False, account_key=key)
        twin = replace(issuer, staging="https://test.example/dir").twin()
        assert twin is not None
        assert twin.account_key == expected


def test_whose_host_it_is() -> None:
    """Where any token is answered, each host is the first issuer's; another one is warned of."""
    issuers = "acme_issuer b { uri https://b.example.com/; } acme_challenge_answer any;"
    plan = plan_of(
        f"{issuers} server {{ listen 443 ssl; server_name a.example.com; acme; }}"
        "server { listen 444 ssl; server_name a.example.com c.example.com; acme b; }"
        "server { listen 445 ssl; server_name l.internal; acme local; }"
    )
    whose = {host: issuer.name for host, issuer in plan.whose_hosts.items()}
    assert whose == {"a.example.com": "letsencrypt", "c.example.com": "b"}
    (warning,) = [text for text, _ in plan.warnings if "acme_challenge_answer" in text]
    assert 'answers for a.example.com as "letsencrypt" wants it' in warning
    assert not plan_of("server { listen 443 ssl; server_name a.example.com; acme; }").whose_hosts


# --- what nginx was built without -----------------------------------------------------------

LOCAL = "server { listen 443 ssl; server_name a.internal; acme local; }"
SHOWN = "server { location /s { acme_status; } }"


@pytest.mark.parametrize(
    ("http", "lacks", "message"),
    [
        pytest.param(f"acme off; server {{ {TLS} }}", {"ngx_http_ssl_module"},
                     '"acme" requires ngx_http_ssl_module', id="TLS"),
        pytest.param(LOCAL, {"ngx_http_ssl_module"}, '"acme" requires ngx_http_ssl_module',
                     id="TLS with an authority of its own"),
        pytest.param(f"server {{ {TLS} }}", {"ngx_http_rewrite_module"},
                     '"acme" requires ngx_http_rewrite_module', id="rewrite"),
        pytest.param(f"server {{ {TLS} }}", {"ngx_http_map_module", "ngx_http_rewrite_module"},
                     '"acme" requires ngx_http_map_module', id="the first of two"),
        pytest.param(f"{LOCAL}\nserver {{ {TLS} }}", {"ngx_http_rewrite_module"},
                     '"acme" requires ngx_http_rewrite_module', id="rewrite for one of two"),
        pytest.param(f"{LOCAL}\n{SHOWN}", {"ngx_http_map_module", "ngx_http_rewrite_module"},
                     '"acme_status" requires ngx_http_rewrite_module', id="rewrite for the status"),
    ],
)  # fmt: skip
def test_lacking(http: str, lacks: set[str], message: str) -> None:
    """A module that nginx was built without is told by its name, where it is needed."""
    with pytest.raises(ConfigError) as refused:
        plan_of(http, lacks=frozenset(lacks))
    assert (refused.value.message, refused.value.line) == (
        f"{message}, which this nginx was built without",
        1 + http.count("\n"),
    )


@pytest.mark.parametrize(
    ("http", "lacks"),
    [
        pytest.param(LOCAL, {"ngx_http_map_module", "ngx_http_rewrite_module"}, id="no challenge"),
        pytest.param(f"server {{ {TLS} }}", {"ngx_mail_ssl_module"}, id="another kind of server"),
        pytest.param("acme off; server { }", {"ngx_http_ssl_module"}, id="off"),
    ],
)
def test_not_needed(http: str, lacks: set[str]) -> None:
    """A module that nothing needs may be missing."""
    assert not plan_of(http, lacks=frozenset(lacks)).warnings
