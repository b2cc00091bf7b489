"""What `Recommender` and `Searcher` answer, asked of a service: the same names, arguments and returns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ServiceError

if TYPE_CHECKING:
    from mmrec.recommending import Explanation
    from mmrec.searching import Moment, Query

API = "/api/v1"
ROWS_AT_ONCE = 1000
By = Literal["fused", "visual", "audio", "text"]
Ids = NDArray[np.str_]
Floats = NDArray[np.float32]


class RemoteUser:
    """The live state of a user, which the service keeps: what `add` takes up counts at once, and after a restart."""

    def __init__(self, client: Client, user_id: str) -> None:
        self._client, self.user_id = client, user_id

    def add(self, item_id: str, timestamp: float | None = None, weight: float = 1.0) -> RemoteUser:
        self._client.add_interactions([(self.user_id, item_id, timestamp, weight)])
        return self


User = str | int | RemoteUser


class Client:
    """Asks a service over HTTP. What it refuses is a `ServiceError` with the service's words.

    Args:
        url: where it listens.
        token: what it asks for, if anything.
        model: the name of one of its models; by default its first.
        timeout: seconds that an answer may take.

    >>> import mmrec
    >>> client = mmrec.Client("http://127.0.0.1:8000")                      # doctest: +SKIP
    >>> ids, scores = client.recommend(["u1", "u2"], k=20)                  # doctest: +SKIP
    >>> client.user_state("u1").add("i3")                                   # doctest: +SKIP
    >>> ids, scores = client.search(mmrec.Query(words=["quiet piano"]))     # doctest: +SKIP
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, token: str = "", model: str | None = None, timeout: float = 60.0
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise ServiceError("mmrec.Client needs the package httpx: pip install 'mmrec[service]'") from None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._failures: Any = httpx.HTTPError, httpx.InvalidURL
        self._model, self._url = model, url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- as Recommender -----------------------------------------------------------------------------------------------

    @property
    def item_ids(self) -> list[str]:
        """The items of the store, in its order."""
        return [item["item_id"] for item in self._pages("items")]

    @property
    def user_ids(self) -> list[str]:
        """The users of the model, and those who came since, sorted."""
        return [user["user_id"] for user in self._pages("users", model=self._model)]

    def item(self, item_id: str) -> dict[str, Any]:
        """What the store says of an item."""
        return dict(self._get("item", item_id=item_id))

    def user_state(self, user: str | int) -> RemoteUser:
        return RemoteUser(self, str(user))

    def recommend(
        self,
        users: User | Sequence[User],
        k: int = 20,
        *,
        exclude_seen: bool = True,
        exclude: Collection[str] = (),
        where: Mapping[str, Any] | None = None,
        candidates: Collection[str] | None = None,
        diversity: float | None = None,
        explore_share: float = 0.0,
    ) -> tuple[Ids, Floats]:
        """Ids and scores `(U, K)`, or `(K,)` for one user; K is that of the longest list.

        Shorter ones are filled up with empty ids and -inf.
        """
        body = {
            "users": _names(users),
            "k": k,
            "exclude_seen": exclude_seen,
            "exclude": list(exclude),
            "where": {column: _json_value(wanted) for column, wanted in (where or {}).items()},
            "candidates": None if candidates is None else list(candidates),
            "diversity": diversity,
            "explore_share": explore_share,
            "model": self._model,
        }
        lists = [answer["results"] for answer in self._post("recommend", body)["lists"]]
        width = max(map(len, lists), default=0)
        ids_UK, scores_UK = np.full((len(lists), width), "", object), np.full((len(lists), width), -np.inf, np.float32)
        for row, results in enumerate(lists):
            ids_UK[row, : len(results)] = [result["item"]["item_id"] for result in results]
            scores_UK[row, : len(results)] = [result["score"] for result in results]
        return (ids_UK[0], scores_UK[0]) if _is_one(users) else (ids_UK, scores_UK)

    def score(self, users: User | Sequence[User], items: Sequence[str]) -> Floats:
        """Fused scores `(N,)`: of one user for each of the items, or of pairs of as many users as items."""
        names = _names(users)
        if not _is_one(users) and len(names) != len(items):
            raise ServiceError(
                f"{len(names)} users and {len(items)} items are no pairs; name one user, or one for each"
            )
        asked = (
            {"user_id": names[0], "items": list(items)}
            if _is_one(users)
            else {"pairs": list(zip(names, items, strict=True))}
        )
        return np.array(self._post("score", {**asked, "model": self._model})["scores"], np.float32)

    def similar_items(self, items: str | Sequence[str], k: int = 10, *, by: By = "fused") -> tuple[Ids, Floats]:
        """The nearest items, by the model or by one modality: ids and cosines `(N, K)`, or `(K,)` for one item."""
        names = [items] if isinstance(items, str) else list(items)
        found = [self._get("similar", item_id=name, k=k, by=by, model=self._model)["results"] for name in names]
        ids = np.array([[result["item"]["item_id"] for result in results] for results in found], object)
        cosines = np.array([[result["score"] for result in results] for results in found], np.float32)
        return (ids[0], cosines[0]) if isinstance(items, str) else (ids, cosines)

    def explain(self, user: User, item: str) -> Explanation:
        from mmrec.recommending import Explanation

        (name,) = _names(user)
        return Explanation.from_dict(self._get("explain", user_id=name, item_id=item, model=self._model))

    def forget_user(self, user: str | int) -> None:
        self._answer("DELETE", "user", params={"user_id": str(user)})

    def add_interactions(self, interactions: Sequence[tuple[str, str, float | None, float]]) -> int:
        """Hand in interactions (user, item, timestamp, weight), all of them or none; returns how many are kept now."""
        names = ("user_id", "item_id", "timestamp", "weight")
        rows = [dict(zip(names, row, strict=True)) for row in interactions]
        return int(self._post("interactions", {"interactions": rows})["added"])

    # --- as Searcher --------------------------------------------------------------------------------------------------

    def search(
        self, query: Query, *, k: int = 10, offset: int = 0, user: User | None = None
    ) -> tuple[list[str], NDArray[np.float64]]:
        """The ids of the best items after the first `offset`, at most `k`, and their scores by rank fusion.

        With a `user`, what was found is ranked by their taste as well, as `Recommender.taste` does it.
        """
        results = self._search(query, k, offset, moments=False, user=user)
        return [result["item"]["item_id"] for result in results], np.array([r["score"] for r in results], np.float64)

    def moments(self, query: Query, *, k: int = 10, offset: int = 0) -> list[Moment]:
        """The best stretch of each of the best items."""
        from mmrec.searching import Moment

        results = self._search(query, k, offset, moments=True, user=None)
        return [
            Moment(
                item_id=result["item"]["item_id"],
                modality=result["moment"]["modality"],
                start=result["moment"]["start"],
                end=result["moment"]["end"],
                cosine=result["score"],
            )
            for result in results
        ]

    def _search(self, query: Query, k: int, offset: int, *, moments: bool, user: User | None) -> list[dict[str, Any]]:
        if len(query.media) > 1 or len(query.vectors) or query.taste is not None or query.fold is not None:
            raise ServiceError(
                "a service is searched by words, items and one file: it takes no vectors, no more files, no fold, and "
                "no taste but that of a user who is named"
            )
        body = {
            "words": list(query.words),
            "without": list(query.without),
            "items": list(query.items),
            "where": query.where,
            "modalities": None if query.modalities is None else list(query.modalities),
            "weights": dict(query.weights),
            "k": k,
            "offset": offset,
            "moments": moments,
            "diversity": query.diversity,
            "user_id": None if user is None else _names(user)[0],
            "model": self._model,
        }
        if not query.media:
            return list(self._post("search", body)["results"])
        path = Path(query.media[0])
        try:
            with path.open("rb") as file:
                sent = {"files": {"file": (path.name, file)}, "data": {"query": json.dumps(body)}}
                return list(self._answer("POST", "search/file", **sent)["results"])
        except OSError as error:
            raise ServiceError(f"{path} cannot be read: {error.strerror or error}") from None

    # --- inside -------------------------------------------------------------------------------------------------------

    def _pages(self, what: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._get(what, offset=offset, limit=ROWS_AT_ONCE, **parameters)
            yield from page["items"]
            offset += ROWS_AT_ONCE
            if offset >= page["total"]:
                return

    def _get(self, what: str, **parameters: Any) -> Any:
        return self._answer("GET", what, params={name: x for name, x in parameters.items() if x is not None})

    def _post(self, what: str, body: Mapping[str, Any]) -> Any:
        return self._answer("POST", what, json=body)

    def _answer(self, method: str, what: str, **sent: Any) -> Any:
        try:
            answer = self._http.request(method, f"{API}/{what}", **sent)
        except self._failures as error:
            raise ServiceError(f"the service at {self._url} does not answer: {error}") from None
        if answer.is_success:
            return answer.json()
        try:
            words = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            words = f"the service at {self._url} answers {answer.status_code} {answer.reason_phrase}"
        raise ServiceError(words)


def _is_one(users: User | Sequence[User]) -> bool:
    return isinstance(users, str | int | np.integer | RemoteUser)


def _names(users: User | Sequence[User]) -> list[str]:
    several: Any = [users] if _is_one(users) else list(users)  # type: ignore[arg-type]
    return [user.user_id if isinstance(user, RemoteUser) else str(user) for user in several]


def _json_value(wanted: Any) -> Any:
    if callable(wanted):
        raise ServiceError("a service takes values to filter by, and no functions")
    return list(wanted) if isinstance(wanted, Collection) and not isinstance(wanted, str) else wanted
