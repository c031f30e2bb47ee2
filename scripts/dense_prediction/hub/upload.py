"""A folder becomes one commit of a repository on the Hub."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.utils import HfHubHTTPError, OfflineModeIsEnabled, httpx

from ..errors import UserError


NEW_REPOSITORY = {".gitattributes"}
"""What the Hub itself puts into a repository."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a folder goes.

    Attributes:
        repository: `organisation/name`, or a name in one's own namespace.
        kind: of the repository, "model" or "kernel".
        revision: the branch, made if it is not there; the default one if None.
        private: whether a new repository is private.
        update: whether the repository may have files already.
        create_pr: propose the commit as a pull request to an existing repository.
    """

    repository: str
    kind: str = "model"
    revision: str | None = None
    private: bool = False
    update: bool = False
    create_pr: bool = False


def files_of(folder: Path) -> dict[str, Path]:
    """Every file in a folder by its path there, sorted."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def describe(folder: Path) -> str:
    """A line for each file with its size in bytes, and one for the sum."""
    sizes = {name: path.stat().st_size for name, path in files_of(folder).items()}
    lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files"])


def upload(
    folder: Path, target: Target, message: str, outdated: Collection[str] = (), keep: Collection[str] = ()
) -> str:
    """Commit a folder to a repository, which is made if it is not there.

    It is one commit, so that nobody ever loads half of a version. What an interrupted upload has sent is not sent
    again by the next one.

    Args:
        outdated: patterns of names that are deleted from the repository if the folder has them no more.
        keep: names that stay as they are in a repository that has them.

    Returns:
        The address of the commit or of the pull request.

    Raises:
        UserError: there is no token or no network, the repository has files already, or the Hub refuses.
    """
    if get_token() is None:
        raise UserError("no token of the Hub: log in with `hf auth login`, or set HF_TOKEN to one that may write")
    with clear_errors(target):
        api = HfApi()
        repository = find_or_make(api, target)
        there = api.list_repo_files(repository, repo_type=target.kind)
        if set(there) - NEW_REPOSITORY and not (target.update or target.create_pr):
            raise UserError(f"{repository} is there already, with {len(there)} files: --update commits a new version")
        if target.revision is not None:
            api.create_branch(repository, branch=target.revision, repo_type=target.kind, exist_ok=True)
            there = api.list_repo_files(repository, revision=target.revision, repo_type=target.kind)
        files = {name: path for name, path in files_of(folder).items() if name not in keep or name not in there}
        old = [name for name in there if name not in files and any(fnmatch(name, pattern) for pattern in outdated)]
        commit = api.create_commit(
            repository,
            [CommitOperationDelete(path_in_repo=name) for name in old]
            + [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()],
            commit_message=message,
            repo_type=target.kind,
            revision=target.revision,
            create_pr=target.create_pr,
        )
    return commit.pr_url or commit.commit_url


def find_or_make(api: HfApi, target: Target) -> str:
    """The full name of the repository, `organisation/name`."""
    if target.create_pr:
        return api.repo_info(target.repository, repo_type=target.kind).id
    # None leaves the choice to the organisation, and an existing repository as it is.
    private = True if target.private else None
    return api.create_repo(target.repository, repo_type=target.kind, private=private, exist_ok=True).repo_id


@contextmanager
def clear_errors(target: Target) -> Iterator[None]:
    """Whatever the client of the Hub raises, as one line that says what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        raise UserError(refusal(error, target)) from error
    except (OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise UserError(f"cannot reach {constants.ENDPOINT}: {one_line(error)}") from error
    except ValueError as error:  # a name that cannot be one, or metadata of the card that the Hub refuses
        raise UserError(one_line(error)) from error
    except (RuntimeError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"the upload to {target.repository} was interrupted ({one_line(error)}): run the same command again, what "
            "has arrived is not sent again"
        ) from error


def refusal(error: HfHubHTTPError, target: Target) -> str:
    reason = error.server_message or one_line(error)
    match error.response.status_code:
        case 401 if not target.create_pr:
            return f"the Hub does not accept the token: make one that may write and `hf auth login` ({reason})"
        case 403 if target.kind == "kernel":
            return (
                f"the token may not write to {target.repository}; kernel repositories need a permission that is "
                f"asked for under Settings, Account on the Hub ({reason})"
            )
        case 403:
            return f"the token may not write to {target.repository} ({reason})"
        case 401 | 404:
            return f"there is no {target.repository} that this token may see ({reason})"
        case status:
            return f"the Hub answered {status} for {target.repository}: {reason}"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
