// The types of mmrec's HTTP API, made by scripts/typescript_types.py from its OpenAPI description.

export type About = { version: string; store: StoreAbout; columns: Array<ColumnAbout>; models: Array<ModelAbout>; features: Features };

/** How many are on disk now, whatever happens. */
export type AddedAnswer = { added: number };

export type Body_search_by_file = { file: string; query?: string };

export type ColumnAbout = { name: string; kind: "text" | "number" | "list" };

export type Duplicate = { item: Item; medium: string; score: number; same_file: boolean; offset_seconds: number; speed: number; differs: Record<string, [unknown, unknown]> };

export type DuplicateGroup = { item: Item; duplicates: Array<Duplicate> };

export type DuplicatesAnswer = { groups: Array<DuplicateGroup> };

export type FailedItem = { item: Item; problems: Record<string, Problem>; media: string };

export type Features = { map: boolean; tags: boolean };

export type ForgottenAnswer = { forgotten: boolean };

export type Health = { status: string };

export type HistoryEntry = { item: Item; timestamp: number | null; weight: number };

/** `timestamp` in seconds since 1970; `weight` above 0: it counts, 0: seen and not liked, below 0: against it. */
export type Interaction = { user_id: string; item_id: string; timestamp?: number | null; weight?: number };

export type InteractionsRequest = { interactions: Array<Interaction> };

/** What lists show of an item. */
export type Item = { item_id: string; title: string; status: string; medium: "clip" | "picture" | "sound" | "text"; duration_seconds: number; has_media: boolean; tags: Array<string>; metadata: Record<string, unknown> };

/** `heard`, `seen` and `about` are what `mmrec understand` found out. */
export type ItemDetails = { item_id: string; title: string; status: string; medium: "clip" | "picture" | "sound" | "text"; duration_seconds: number; has_media: boolean; tags: Array<string>; metadata: Record<string, unknown>; description: string; language: string; facts: Record<string, unknown>; problems: Record<string, Problem>; stale_since: Record<string, string>; moments: Record<string, Array<[number, number]>>; classes: Array<[string, number]>; tag_columns: Record<string, Array<string>>; heard: Array<Passage>; seen: Array<Passage>; about: Record<string, unknown> };

/** Items as points of a plane: `x` and `y` from 0 to 1, and the values of a column. */
export type MapAnswer = { item_ids: Array<string>; x: Array<number>; y: Array<number>; color: Array<unknown> | null; by: string };

export type ModalityAbout = { modality: "visual" | "audio" | "text"; name: string; dim: number; has_words: boolean };

export type ModelAbout = { name: string; version: number; items: number; users: number; metrics: Record<string, number> };

export type Moment = { modality: "visual" | "audio" | "text"; start: number; end: number; when: string; score: number };

export type Page_FailedItem = { items: Array<FailedItem>; offset: number; limit: number; total: number };

export type Page_Item = { items: Array<Item>; offset: number; limit: number; total: number };

export type Page_UserCount = { items: Array<UserCount>; offset: number; limit: number; total: number };

/** Words from `start` to `end`, in seconds; a picture's are at 0. */
export type Passage = { start: number; end: number; text: string };

export type Problem = { reason: string; detail: string };

export type RecommendAnswer = { lists: Array<RecommendedList> };

/** Lists for users, as `Recommender.recommend` makes them; `watched` is added to their histories for this once. */
export type RecommendRequest = { users: Array<string>; k?: number; where?: Record<string, string | number | boolean | Array<string | number | boolean>>; exclude?: Array<string>; candidates?: Array<string> | null; diversity?: number | null; explore_share?: number; exclude_seen?: boolean; watched?: Array<string>; model?: string | null };

export type RecommendedList = { user_id: string; results: Array<ScoredItem> };

export type Run = { run_id: string; command: string; mmrec: string; start: string; end: string | null; exit: number | null; message: string; counts: Record<string, unknown> };

export type RunsAnswer = { runs: Array<Run> };

export type ScoreAnswer = { scores: Array<number> };

/** Items of one user, or pairs of a user and an item. */
export type ScoreRequest = { user_id?: string | null; items?: Array<string> | null; pairs?: Array<[string, string]> | null; model?: string | null };

export type ScoredItem = { item: Item; score: number };

export type SearchAnswer = { results: Array<SearchResult>; offset: number; limit: number };

/** The parts of a question, as `mmrec search` takes them; `user_id`: what was found is ranked by taste as well. */
export type SearchRequest = { words?: Array<string>; without?: Array<string>; items?: Array<string>; where?: string; modalities?: Array<"visual" | "audio" | "text"> | null; weights?: Record<string, number>; k?: number; offset?: number; moments?: boolean; diversity?: number; user_id?: string | null; model?: string | null };

export type SearchResult = { item: Item; score: number; moment: Moment | null };

export type SessionRequest = { token: string };

export type SimilarAnswer = { results: Array<ScoredItem> };

/** `ok`: all that the item has was embedded. `partial`: some of it. `failed`: nothing. `stale`: a modality could not be read any more; the tokens that it had before are kept. >>> import mmrec >>> mmrec.FeatureStore("store").status().statuses[mmrec.Status.OK] 16 */
export type Status = "ok" | "partial" | "failed" | "stale";

export type StoreAbout = { items: number; statuses: Record<string, number>; modalities: Array<ModalityAbout>; languages: Record<string, number> };

/** The history, newest first; `known`: by the model, or by live interactions. */
export type UserAnswer = { user_id: string; known: boolean; history: Array<HistoryEntry> };

export type UserCount = { user_id: string; num_interactions: number };

/** Peaks from 0 to 1, evenly spread over `seconds`. */
export type Waveform = { peaks: Array<number>; seconds: number };

export interface Operations {
  /** What is served: the store, the columns that filters know, the models. */
  "GET /api/v1/about": { query: {}; body: undefined; answer: About };
  /** The items that hold the same content again, as `mmrec duplicates` finds them. */
  "GET /api/v1/duplicates": { query: {}; body: undefined; answer: DuplicatesAnswer };
  /** Why an item stands where it does in a user's list, as `mmrec explain --json` says it. */
  "GET /api/v1/explain": { query: { user_id: string; item_id: string; model?: string | null }; body: undefined; answer: Record<string, unknown> };
  /** The items with a fault, and its reason. */
  "GET /api/v1/failures": { query: { offset?: number; limit?: number }; body: undefined; answer: Page_FailedItem };
  /** Whether the process lives. */
  "GET /api/v1/health": { query: {}; body: undefined; answer: Health };
  /** Take up what users did, all of it or nothing: it is on disk when this is answered, and counts from then on. */
  "POST /api/v1/interactions": { query: {}; body: InteractionsRequest; answer: AddedAnswer };
  /** All that is known of an item but its tokens. */
  "GET /api/v1/item": { query: { item_id: string }; body: undefined; answer: ItemDetails };
  /** The items in the store's order; `where` as in `mmrec search --where`. */
  "GET /api/v1/items": { query: { offset?: number; limit?: number; where?: string; status?: Status | null }; body: undefined; answer: Page_Item };
  /** All items as points of a plane, near where they are alike: by the model, else by a modality of the store. */
  "GET /api/v1/map": { query: { color?: string; model?: string | null }; body: undefined; answer: MapAnswer };
  /** The media file of an item, or the range of it that is asked for. */
  "GET /api/v1/media": { query: { item_id: string }; body: undefined; answer: Blob };
  /** Figures in Prometheus's text format. */
  "GET /api/v1/metrics": { query: {}; body: undefined; answer: Blob };
  /** Whether requests are answered: 503 while the service stops. */
  "GET /api/v1/ready": { query: {}; body: undefined; answer: Health };
  /** The best items for each user. */
  "POST /api/v1/recommend": { query: {}; body: RecommendRequest; answer: RecommendAnswer };
  /** What ran on the store, the newest first. */
  "GET /api/v1/runs": { query: {}; body: undefined; answer: RunsAnswer };
  /** Fused scores: of a user for each of the items, or of pairs of a user and an item. */
  "POST /api/v1/score": { query: {}; body: ScoreRequest; answer: ScoreAnswer };
  /** The items that are nearest to all parts of a question, or with `moments` the best stretch of each. */
  "POST /api/v1/search": { query: {}; body: SearchRequest; answer: SearchAnswer };
  /** As `/search`, near to a picture, sound or video as well; `query` is what `/search` takes, as JSON. */
  "POST /api/v1/search/file": { query: {}; body: FormData; answer: SearchAnswer };
  /** Exchange the token for a cookie that no script can read, which opens what only reads: pictures, sound, video. */
  "POST /api/v1/session": { query: {}; body: SessionRequest; answer: undefined };
  /** The items nearest by cosine: by the vectors of the model (`fused`), or by the tokens of one modality. */
  "GET /api/v1/similar": { query: { item_id: string; by?: "fused" | "visual" | "audio" | "text"; k?: number; model?: string | null }; body: undefined; answer: SimilarAnswer };
  /** A picture of an item as JPEG: the frame at `seconds`, upright, so many pixels wide. */
  "GET /api/v1/thumbnail": { query: { item_id: string; seconds?: number | null; width?: number }; body: undefined; answer: Blob };
  /** Delete what is known of a user: live interactions, and the history in the models with all earlier versions. */
  "DELETE /api/v1/user": { query: { user_id: string }; body: undefined; answer: ForgottenAnswer };
  /** What a user did, the newest first, at most `limit` interactions. */
  "GET /api/v1/user": { query: { user_id: string; model?: string | null; limit?: number }; body: undefined; answer: UserAnswer };
  /** The users of the fit and those who came since, by their ids. */
  "GET /api/v1/users": { query: { offset?: number; limit?: number; prefix?: string; model?: string | null }; body: undefined; answer: Page_UserCount };
  /** The loudest of each part of an item's sound, in so many parts. */
  "GET /api/v1/waveform": { query: { item_id: string; points?: number }; body: undefined; answer: Waveform };
}
