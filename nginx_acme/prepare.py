"""What a start prepares once it knows what is missing.

    in_store     place what there is, `nginx -t`, wait for what is missing, switch
    in_shelter   the same where the state directory can't be written; nobody is asked

Nothing is switched and nobody is asked before nginx itself has accepted the new generation.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import generation, remains
from nginx_acme.beside import start_agent
from nginx_acme.draft import Proposal, draft, left_to_do, use, write
from nginx_acme.errors import StateError
from nginx_acme.launch import utc_now
from nginx_acme.loaded import note_loaded, on_disk
from nginx_acme.noted import note_sources
from nginx_acme.places import answers, keep
from nginx_acme.publish import publish
from nginx_acme.standing import unfinished
from nginx_acme.taking import placed
from nginx_acme.understanding import free_addresses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx_acme.challenges.http01 import Responder
    from nginx_acme.generation import Generation
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate
    from nginx_acme.understanding import Understood


def in_store(
    understood: Understood,
    wanted: Sequence[Certificate],
    added: tuple[Listen, ...],
    responder: Responder | None,
) -> None:
    """Make the generation that nginx is started with, and get what is missing for it.

    Args:
        understood: the configuration; its store is open for writing.
        wanted: certificates that are missing.
        added: addresses that nginx gets from us.
        responder: the temporary server, if this start waits for them; it is closed in any case.

    Raises:
        NginxRejected: nginx refuses it.
        StateError: the store can't be written after all.
    """
    home, plan = understood.home, understood.plan
    with responder or nullcontext():
        places = keep(plan, home.store, utc_now())
        proposal = Proposal(understood, write(understood, places, added))
        _get(understood, wanted, responder, proposal)
        drafted = proposal.accepted()
    answered = answers(plan, home.store, utc_now())
    if answered != places.answers:  # a CA has forgotten its account
        drafted = draft(understood, replace(places, answers=answered), added)
    if understood.runs():
        return
    _switch(understood, drafted, added)
    note_loaded(home, on_disk(plan.certificates, home.store, utc_now()))
    publish(home, understood.launch.log, utc_now())
    remains.remove(home, understood.launch.log, utc_now())
    if not plan.settings.agent and unfinished(plan.certificates, home.store, utc_now()):
        understood.launch.log.notice(
            '"acme_agent" is off: certificates are missing until "nginx-acme renew" gets them'
        )


def in_shelter(understood: Understood) -> None:
    """From a private folder, with nothing written to the state directory and nobody asked.

    Raises:
        NginxRejected: nginx refuses it.
        StateError: the private folder can't be written.
    """
    home, plan = understood.home, understood.plan
    home.store.open_for_writing()
    added = free_addresses(understood)
    drafted = draft(understood, placed(understood, utc_now()), added)
    if understood.runs():
        return
    _switch(understood, drafted, added)
    note_loaded(home, on_disk(plan.certificates, home.store, utc_now()))
    publish(home, understood.launch.log, utc_now())


def _switch(understood: Understood, drafted: Generation, added: tuple[Listen, ...]) -> None:
    """Let nginx start with it, and with the agent."""
    home, work = understood.home, left_to_do(understood)
    with home.runtime.lock_generation(home.instance):
        use(home, drafted, work)
        understood.keep_files()
        note_sources(understood, added, work)
        generation.prune(home.instance.path)
    start_agent(home, work, os.getpid())


def _get(
    understood: Understood,
    wanted: Sequence[Certificate],
    responder: Responder | None,
    proposal: Proposal,
) -> None:
    """Get what is missing, as far as there is time and a way; the issuer `local` needs neither.

    Nobody is asked before nginx has accepted what they are for.
    """
    now = [certificate for certificate in wanted if responder or certificate.issuer.local]
    if not now:
        return
    # Takes 0.1 s to import; meanwhile nginx looks at the proposal.
    from nginx_acme.issuing import Scene, before_nginx, issue_locally

    proposal.accepted()
    launch, instance = understood.launch, understood.home.instance
    scene = Scene(understood.home.store, launch.log, launch.signals)
    try:
        if responder is None:
            issue_locally(now, scene)
            return
        instance.begin_wait(utc_now(), understood.home.family)
        if before_nginx(now, scene, responder, understood.plan.settings.start_wait):
            instance.end_wait()
    except StateError as error:
        launch.log.error(str(error))
    except Exception as error:  # noqa: BLE001 - no fault of ours in asking keeps nginx from starting
        launch.log.error(f"internal error while asking: {type(error).__name__}: {error}")
