"""`search delete`: a study with all that belongs to it."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.completion import complete_studies
from search.cli.options import Artifacts, Storage
from search.cli.output import echo
from search.folders import DATABASE_URL
from search.wording import counted


def delete(
    study: Annotated[
        str, typer.Argument(help="Name of the study.", autocompletion=complete_studies)
    ],
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study with all its trials and artifacts.

    The runs that confirm or ablate it are deleted as well.

    Example: search delete mnist-8000x15
    """
    import optuna

    from search.report.artifact_files import artifact_folder, delete_files
    from search.storage.open import opened_storage
    from search.study.locks import is_searched
    from search.study.open import find_repeats, has_copy, open_study
    from search.study.settings import identity_of
    from search.study.summary import ABLATES, CONFIRMS

    with opened_storage(storage, write=True) as opened:
        chosen = open_study(opened, study)
        trials = counted(len(chosen.get_trials(deepcopy=False)), "trial")
        if not yes:
            ends = "; the search that runs on it ends" if is_searched(chosen) else ""
            typer.confirm(f"Delete {study} with its {trials}{ends}?", abort=True)
        for purpose in (CONFIRMS, ABLATES):
            repeats = find_repeats(opened, chosen, purpose)
            if repeats is not None and not has_copy(opened, chosen):  # whose runs they are as well
                optuna.delete_study(study_name=repeats.study_name, storage=opened)
        identity = identity_of(chosen)
        optuna.delete_study(study_name=study, storage=opened)
        folder = artifact_folder(storage, artifacts)
        if folder is not None:  # behind the entries, none of which may lack its file
            delete_files(folder, opened, chosen._study_id, identity)
    echo(f"Deleted {study} ({trials}).")
