"""Items and moments by words, by files and by other items."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from mmrec.errors import SearchError
from mmrec.searching import Query, Taste
from mmrec.service.model_users import LoadedModel
from mmrec.service.resources import Resources
from mmrec.service.schemas import (
    By,
    Moment,
    SearchAnswer,
    SearchRequest,
    SearchResult,
    SimilarAnswer,
)
from mmrec.service.shared import ItemId, K, ModelName, Opened, scored, slowly

search_routes = APIRouter(tags=["search"])
LONGEST_SUFFIX = 16


@search_routes.post("/search")
def search(opened: Opened, body: SearchRequest) -> SearchAnswer:
    """The items that are nearest to all parts of a question, or with `moments` the best stretch of each."""
    return _answer(opened, body, [])


@search_routes.post("/search/file")
async def search_by_file(
    request: Request, opened: Opened, file: Annotated[UploadFile, File()], query: Annotated[str, Form()] = "{}"
) -> SearchAnswer:
    """As `/search`, near to a picture, sound or video as well; `query` is what `/search` takes, as JSON."""
    try:
        body = SearchRequest.model_validate_json(query)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    return await slowly(lambda: _by_file(opened, body, file), request)


@search_routes.get("/similar")
def similar(opened: Opened, item_id: ItemId, by: By = "fused", k: K = 10, model: ModelName = None) -> SimilarAnswer:
    """The items nearest by cosine: by the vectors of the model (`fused`), or by the tokens of one modality."""
    if by == "fused":
        loaded = opened.model(model)
        loaded.check_item(item_id)
        ids, scores = loaded.model.similar_items(item_id, k)
        pairs = [(str(i), float(s)) for i, s in zip(ids, scores, strict=True) if i]
        return SimilarAnswer(results=scored(opened, pairs, loaded.title))
    opened.items.check(item_id)
    found, cosines = opened.searcher.similar_items(item_id, by, k=k)
    return SimilarAnswer(results=scored(opened, list(zip(found, cosines.tolist(), strict=True))))


def _by_file(opened: Resources, body: SearchRequest, file: UploadFile) -> SearchAnswer:
    """The file lies on disk for as long as it is decoded, under a name of ours; of its own only the suffix counts."""
    name = PurePath(file.filename or "the file").name
    suffix = PurePath(name).suffix
    is_plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= LONGEST_SUFFIX
    with tempfile.NamedTemporaryFile(prefix="query-", suffix=suffix if is_plain else "") as copy:
        shutil.copyfileobj(file.file, copy)
        copy.flush()
        try:
            return _answer(opened, body, [Path(copy.name)])
        except SearchError as error:
            raise SearchError(str(error).replace(copy.name, name)) from None


def _taste(loaded: LoadedModel, user_id: str) -> Taste:
    loaded.check_user(user_id)
    return loaded.model.taste(loaded.user(user_id))


def _answer(opened: Resources, body: SearchRequest, media: Sequence[Path]) -> SearchAnswer:
    query = Query(
        words=body.words,
        media=media,
        items=body.items,
        without=body.without,
        where=body.where,
        modalities=body.modalities,
        weights=body.weights,
        diversity=body.diversity,
        fold=opened.copies,
        taste=None if body.user_id is None else _taste(opened.model(body.model), body.user_id),
    )
    if body.moments:
        moments = opened.searcher.moments(query, k=body.k, offset=body.offset)
        items = opened.items.summaries([moment.item_id for moment in moments])
        results = [
            SearchResult(
                item=item,
                score=moment.cosine,
                moment=Moment(
                    modality=moment.modality, start=moment.start, end=moment.end, when=moment.when, score=moment.cosine
                ),
            )
            for item, moment in zip(items, moments, strict=True)
        ]
    else:
        ids, scores = opened.searcher.search(query, k=body.k, offset=body.offset)
        items = opened.items.summaries(ids)
        results = [
            SearchResult(item=item, score=score, moment=None)
            for item, score in zip(items, scores.tolist(), strict=True)
        ]
    return SearchAnswer(results=results, offset=body.offset, limit=body.k)
