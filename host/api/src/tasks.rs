//! `/v1/tasks`: what owners ask for, and what lease holders report.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::http::{
    Complete, Fail, Renew, Renewed, SubmitMany, SubmitOutcome, SubmittedMany, TaskAnswer, WhyAnswer,
};
use quorate_types::limits::{INLINE_BYTES_MAX, SUBMIT_BATCH_MAX};
use quorate_types::nearest::nearest;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::Submitted;
use quorate_types::{
    Payload, Refusal, Reply, Request, Submission, TaskId, TaskSpec, TaskState, TraceId,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::blobs::check_there;
use crate::failure::{Answer, Failure};
use crate::input;
use crate::params::{Named, Params};
use crate::state::{Api, Asked, DEADLINE_MS_DEFAULT, Shared, answered};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Tasks on a page, where the caller names no number, and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// Reads a small JSON body.
pub(crate) async fn json_body<T: DeserializeOwned>(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Failure> {
    input::json(&input::read(headers, body, "the JSON body", api.options.json_bytes_max).await?)
}

/// A change that was committed and has nothing else to say.
pub(crate) fn done(reply: Reply) -> Answer {
    let Reply::Done = reply else { return Err(Failure::unexpected("Done")) };
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether a body speaks of several tasks; what else it says is read afterwards.
#[derive(Deserialize)]
struct Several {
    tasks: Option<IgnoredAny>,
}

/// `POST /v1/tasks`
pub(crate) async fn submit(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let key = match headers.get(IDEMPOTENCY_KEY) {
        None => None,
        Some(key) => Some(key.to_str().map(str::to_owned).map_err(|_opaque| {
            Failure::invalid("the Idempotency-Key is not plain text", "use letters and digits")
        })?),
    };
    let limit = api.options.json_bytes_max;
    let bytes = input::read(&headers, body, "the JSON body", limit).await?;
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    if input::json::<Several>(&bytes)?.tasks.is_some() {
        let many: SubmitMany = input::json(&bytes)?;
        return submit_many(&api, many, key, asked.trace, deadline_ms).await;
    }
    let submission = submission(&api, input::json(&bytes)?, key, asked.trace)?;
    check_there(&api, "the input", &submission.spec.input, deadline_ms).await?;
    let answers = ask_submit(&api, vec![submission], deadline_ms).await?;
    let [answer] =
        <[_; 1]>::try_from(answers).map_err(|_more_or_none| Failure::unexpected("Submitted"))?;
    let submitted = answer?;
    let status = if submitted.existed { StatusCode::OK } else { StatusCode::CREATED };
    let location = [("location", format!("/v1/tasks/{}", submitted.id))];
    Ok((status, location, Json(submitted)).into_response())
}

async fn submit_many(
    api: &Api,
    many: SubmitMany,
    key: Option<String>,
    trace: TraceId,
    deadline_ms: u64,
) -> Answer {
    if many.tasks.len() > SUBMIT_BATCH_MAX {
        return Err(Failure::invalid(
            format!("{} tasks in one request; the limit is {SUBMIT_BATCH_MAX}", many.tasks.len()),
            "send them in several requests",
        ));
    }
    // One key for all would make them one task; each gets its own by its place.
    let key_of = |place: usize| key.as_ref().map(|key| format!("{key}/{place}"));
    let mut checked = Vec::with_capacity(many.tasks.len());
    for (place, spec) in many.tasks.into_iter().enumerate() {
        let key = if spec.idempotency_key.is_some() { None } else { key_of(place) };
        let one = match submission(api, spec, key, trace) {
            Ok(one) => {
                check_there(api, "the input", &one.spec.input, deadline_ms).await.map(|()| one)
            }
            Err(failure) => Err(failure),
        };
        checked.push(one);
    }
    let sound: Vec<Submission> =
        checked.iter().filter_map(|one| one.as_ref().ok()).cloned().collect();
    let expected = sound.len();
    let answers =
        if sound.is_empty() { Vec::new() } else { ask_submit(api, sound, deadline_ms).await? };
    if answers.len() != expected {
        return Err(Failure::unexpected("Submitted"));
    }
    let mut answers = answers.into_iter();
    let outcomes = checked.into_iter().filter_map(|one| match one {
        Err(failure) => Some(SubmitOutcome::Problem(failure.problem().clone())),
        Ok(_sent) => answers.next().map(|answer| match answer {
            Ok(submitted) => SubmitOutcome::Submitted(submitted),
            Err(refusal) => SubmitOutcome::Problem(refusal.into()),
        }),
    });
    Ok(Json(SubmittedMany { tasks: outcomes.collect() }).into_response())
}

/// A task as the door takes it: the header's key, the request's trace, no input too large for the
/// log.
fn submission(
    api: &Api,
    mut spec: TaskSpec,
    key: Option<String>,
    trace: TraceId,
) -> Result<Submission, Failure> {
    if let Some(key) = key {
        if spec.idempotency_key.as_ref().is_some_and(|field| *field != key) {
            return Err(Failure::invalid(
                "the Idempotency-Key header and the field `idempotency_key` differ",
                "give one of them",
            ));
        }
        spec.idempotency_key = Some(key);
    }
    if spec.trace == TraceId::default() {
        spec.trace = trace;
    }
    check_inline("the input", &spec.input)?;
    Ok(Submission { spec, nonce: api.fresh.nonce() })
}

fn check_inline(what: &str, payload: &Payload) -> Result<(), Failure> {
    match payload {
        Payload::Inline(bytes) if bytes.len() > INLINE_BYTES_MAX => Err(Refusal::TooLarge {
            what: what.to_owned(),
            got: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(INLINE_BYTES_MAX).unwrap_or(u64::MAX),
        }
        .into()),
        Payload::Inline(_) | Payload::Blob { .. } => Ok(()),
    }
}

async fn ask_submit(
    api: &Api,
    submissions: Vec<Submission>,
    deadline_ms: u64,
) -> Result<Vec<Result<Submitted, Refusal>>, Failure> {
    let Reply::Submitted(answers) = api.ask(Request::Submit(submissions), deadline_ms).await?
    else {
        return Err(Failure::unexpected("Submitted"));
    };
    Ok(answers)
}

/// `GET /v1/tasks`
pub(crate) async fn list(State(api): State<Shared>, asked: Asked, params: Params) -> Answer {
    let params = params.only(&["namespace", "state", "queue", "limit", "cursor", "consistency"])?;
    let limit = params.one("limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Failure::invalid(
            format!("a page of {limit} tasks"),
            format!("give limit as 1 to {LIMIT_MAX} and go on with the cursor"),
        ));
    }
    let filter = TaskFilter {
        namespace: params.one("namespace")?.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()),
        state: params.one::<String>("state")?.map(|text| state(&text)).transpose()?,
        queue: params.one("queue")?,
        cursor: params.one("cursor")?,
        limit,
    };
    let request = Request::Tasks(filter, params.consistency()?);
    Ok(Json(answered!(Tasks, api, asked, request)).into_response())
}

fn state(text: &str) -> Result<TaskState, Failure> {
    let names = TaskState::ALL.map(|state| state.to_string());
    let found = TaskState::ALL.into_iter().zip(&names).find(|(_, name)| *name == text);
    found.map(|(state, _)| state).ok_or_else(|| {
        let near = nearest(text, names.iter().map(String::as_str));
        let next = near.map_or(String::new(), |near| format!("did you mean `{near}`? "));
        Failure::invalid(
            format!("`{text}` is no state of a task"),
            format!("{next}states are: {}", names.join(", ")),
        )
    })
}

/// Reads one task.
pub(crate) async fn read(
    api: &Api,
    id: TaskId,
    consistency: Consistency,
    deadline_ms: u64,
) -> Result<TaskAnswer, Failure> {
    let Reply::Task(task, stale) = api.ask(Request::Task(id, consistency), deadline_ms).await?
    else {
        return Err(Failure::unexpected("Task"));
    };
    Ok(TaskAnswer { task: *task, stale })
}

/// `GET /v1/tasks/{id}`
pub(crate) async fn one(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
    params: Params,
) -> Answer {
    let consistency = params.only(&["consistency"])?.consistency()?;
    let answer = read(&api, id, consistency, asked.deadline_or(DEADLINE_MS_DEFAULT)).await?;
    Ok(Json(answer).into_response())
}

/// `GET /v1/tasks/{id}/why`
pub(crate) async fn why(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
    params: Params,
) -> Answer {
    let consistency = params.only(&["consistency"])?.consistency()?;
    let why = answered!(Why, api, asked, Request::Why(id, consistency));
    let stale = consistency == Consistency::Stale;
    Ok(Json(WhyAnswer { why, stale }).into_response())
}

/// `POST /v1/tasks/{id}/cancel`
pub(crate) async fn cancel(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
) -> Answer {
    done(api.ask(Request::Cancel(id), asked.deadline_or(DEADLINE_MS_DEFAULT)).await?)
}

/// `POST /v1/tasks/{id}/renew`
pub(crate) async fn renew(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Renew { token } = json_body(&api, &headers, body).await?;
    let term_ms = answered!(Renewed, api, asked, Request::Renew(id, token));
    Ok(Json(Renewed { term_ms }).into_response())
}

/// `POST /v1/tasks/{id}/complete`
pub(crate) async fn complete(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Complete { token, result } = json_body(&api, &headers, body).await?;
    check_inline("the result", &result)?;
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    check_there(&api, "the result", &result, deadline_ms).await?;
    done(api.ask(Request::Complete(id, token, result), deadline_ms).await?)
}

/// `POST /v1/tasks/{id}/fail`
pub(crate) async fn fail(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Fail { token, reason, retry } = json_body(&api, &headers, body).await?;
    let request = Request::Fail(id, token, reason, retry);
    done(api.ask(request, asked.deadline_or(DEADLINE_MS_DEFAULT)).await?)
}
