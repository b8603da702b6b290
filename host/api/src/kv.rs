//! `/v1/kv`: keys over HTTP. A value is a body as it is; conditions are parameters.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use quorate_types::door::Consistency;
use quorate_types::http::{KvBatch, KvGot, KvOutcome, KvOutcomes, KvPage, TxnDone};
use quorate_types::kv::{
    Act, Done, Expect, KvAnswer, KvFound, KvRead, KvRequest, KvWatch, Op, Subject, Txn, Value,
};
use quorate_types::limits::{KV_ACTS_MAX, KV_VALUE_BYTES_MAX};
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Refusal, Reply, Request};

use crate::changes;
use crate::failure::{Answer, Failure};
use crate::input;
use crate::numbers;
use crate::params::{Named, Params};
use crate::state::{Api, Asked, DEADLINE_MS_DEFAULT, Shared};
use crate::tasks::json_body;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const CONDITIONS: [&str; 4] = ["absent", "present", "version", "modified"];

/// Things on a page, where the caller names no number, and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// The namespace that is named, or the default.
pub(crate) fn namespace(params: &Params) -> Result<String, Failure> {
    Ok(params.one("namespace")?.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()))
}

/// How many things a page shall have.
pub(crate) fn limit(params: &Params) -> Result<u32, Failure> {
    let limit = params.one("limit")?.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Failure::invalid(
        format!("a page of {limit}"),
        format!("give limit as 1 to {LIMIT_MAX} and go on with the cursor"),
    ))
}

/// Has acts done, once however often the request is repeated below or comes again under its key.
pub(crate) async fn act_all(
    api: &Api,
    namespace: String,
    key: Option<&str>,
    acts: Vec<Act>,
    deadline_ms: u64,
) -> Result<KvAnswer, Failure> {
    let numbered = api.numbers.next(&api.fresh);
    let nonce = key.map_or(numbered.nonce(), |key| numbers::of_key(&namespace, key));
    let request = KvRequest { namespace, nonce: Some(nonce), acts };
    request.check()?;
    let Reply::Kv(answers) = api.ask(Request::Kv(vec![request]), deadline_ms).await? else {
        return Err(Failure::unexpected("Kv"));
    };
    let [answer] =
        <[_; 1]>::try_from(answers).map_err(|_more_or_none| Failure::unexpected("Kv"))?;
    Ok(answer)
}

/// Has one act done.
pub(crate) async fn act(
    api: &Api,
    asked: Asked,
    namespace: String,
    key: Option<&str>,
    act: Act,
) -> Result<Done, Failure> {
    act.check()?;
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    let answer = act_all(api, namespace, key, vec![act], deadline_ms).await?;
    let [outcome] =
        <[_; 1]>::try_from(answer).map_err(|_more_or_none| Failure::unexpected("Kv"))?;
    Ok(outcome?)
}

/// Reads one thing, and whether the answer may be old.
pub(crate) async fn read(
    api: &Api,
    asked: Asked,
    read: KvRead,
    consistency: Consistency,
) -> Result<(KvFound, bool), Failure> {
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    let request = Request::KvRead(vec![read], consistency);
    let Reply::KvFound(found, stale) = api.ask(request, deadline_ms).await? else {
        return Err(Failure::unexpected("KvFound"));
    };
    let [found] =
        <[_; 1]>::try_from(found).map_err(|_more_or_none| Failure::unexpected("KvFound"))?;
    Ok((found?, stale))
}

/// The key that tells a repeat, if the request brings one.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    headers.get(IDEMPOTENCY_KEY).map_or(Ok(None), |key| {
        key.to_str().map(Some).map_err(|_opaque| {
            Failure::invalid("the Idempotency-Key is not plain text", "use letters and digits")
        })
    })
}

fn condition(params: &Params) -> Result<Option<Expect>, Failure> {
    let flag = |name| Ok::<bool, Failure>(params.one::<bool>(name)?.unwrap_or(false));
    let given = [
        flag("absent")?.then_some(Expect::Absent),
        flag("present")?.then_some(Expect::Present),
        params.one("version")?.map(Expect::Version),
        params.one("modified")?.map(Expect::Modified),
    ];
    let mut given = given.into_iter().flatten();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err(Failure::invalid(
            "more than one condition",
            format!("give one of {}, or use POST /v1/kv:txn", CONDITIONS.join(", ")),
        ));
    }
    Ok(first)
}

/// `GET /v1/kv/{key}`
pub(crate) async fn one(
    State(api): State<Shared>,
    Named(key): Named<String>,
    asked: Asked,
    params: Params,
) -> Answer {
    let params = params.only(&["namespace", "consistency"])?;
    let question = KvRead::Get { namespace: namespace(&params)?, key: key.clone() };
    let (found, stale) = read(&api, asked, question, params.consistency()?).await?;
    let KvFound::Get(record, as_of) = found else { return Err(Failure::unexpected("Get")) };
    let record = record.ok_or_else(|| Refusal::NotFound(format!("key `{key}`")))?;
    Ok(Json(KvGot { record, as_of, stale }).into_response())
}

/// `PUT /v1/kv/{key}`
pub(crate) async fn put(
    State(api): State<Shared>,
    Named(key): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let known = ["namespace", "lease", "absent", "present", "version", "modified"];
    let params = params.only(&known)?;
    let (lease, expect) = (params.one("lease")?, condition(&params)?);
    let most = u64::try_from(KV_VALUE_BYTES_MAX).unwrap_or(u64::MAX);
    let value = Value(input::read(&headers, body, "the value", most).await?);
    let op = Op::Put { key, value, lease, expect };
    done(&api, asked, namespace(&params)?, key_of(&headers)?, op).await
}

/// `DELETE /v1/kv/{key}`
pub(crate) async fn delete(
    State(api): State<Shared>,
    Named(key): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let params = params.only(&["namespace", "absent", "present", "version", "modified"])?;
    let op = Op::Delete { key, expect: condition(&params)? };
    done(&api, asked, namespace(&params)?, key_of(&headers)?, op).await
}

/// `DELETE /v1/kv?prefix=`
pub(crate) async fn delete_range(
    State(api): State<Shared>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let params = params.only(&["namespace", "prefix"])?;
    let op = Op::DeleteRange { prefix: params.one("prefix")?.unwrap_or_default() };
    done(&api, asked, namespace(&params)?, key_of(&headers)?, op).await
}

async fn done(api: &Api, asked: Asked, namespace: String, key: Option<&str>, op: Op) -> Answer {
    let Done::Op(done) = act(api, asked, namespace, key, Act::Op(op)).await? else {
        return Err(Failure::unexpected("Op"));
    };
    Ok(Json(done).into_response())
}

/// `GET /v1/kv?prefix=`
pub(crate) async fn range(State(api): State<Shared>, asked: Asked, params: Params) -> Answer {
    let params = params.only(&["namespace", "prefix", "limit", "cursor", "consistency"])?;
    let question = KvRead::Range {
        namespace: namespace(&params)?,
        prefix: params.one("prefix")?.unwrap_or_default(),
        cursor: params.one("cursor")?,
        limit: limit(&params)?,
    };
    let (found, stale) = read(&api, asked, question, params.consistency()?).await?;
    let KvFound::Range(page) = found else { return Err(Failure::unexpected("Range")) };
    Ok(Json(KvPage { page, stale }).into_response())
}

/// `POST /v1/kv:txn`
pub(crate) async fn txn(
    State(api): State<Shared>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let txn: Txn = json_body(&api, &headers, body).await?;
    let namespace = namespace(&params)?;
    let done = act(&api, asked, namespace, key_of(&headers)?, Act::Txn(txn)).await?;
    let Done::Txn { held, results } = done else { return Err(Failure::unexpected("Txn")) };
    Ok(Json(TxnDone { held, results }).into_response())
}

/// `POST /v1/kv:batch`
pub(crate) async fn batch(
    State(api): State<Shared>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let KvBatch { ops } = json_body(&api, &headers, body).await?;
    if !(1..=KV_ACTS_MAX).contains(&ops.len()) {
        return Err(Failure::invalid(
            format!("{} acts in one batch", ops.len()),
            format!("send 1 to {KV_ACTS_MAX}"),
        ));
    }
    let acts = ops.into_iter().map(Act::Op).collect();
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    let key = key_of(&headers)?;
    let answer = act_all(&api, namespace(&params)?, key, acts, deadline_ms).await?;
    let outcome = |one: Result<Done, Refusal>| match one {
        Ok(Done::Op(done)) => Ok(KvOutcome::Done(done)),
        Ok(_other) => Err(Failure::unexpected("Op")),
        Err(refusal) => Ok(KvOutcome::Problem(refusal.into())),
    };
    let results: Result<Vec<KvOutcome>, Failure> = answer.into_iter().map(outcome).collect();
    Ok(Json(KvOutcomes { results: results? }).into_response())
}

/// `GET /v1/kv:watch`
pub(crate) async fn watch(State(api): State<Shared>, params: Params, headers: HeaderMap) -> Answer {
    let params = params.only(&["namespace", "key", "prefix", "after"])?;
    let subject = match (params.one("key")?, params.one("prefix")?) {
        (Some(key), None) => Subject::Key(key),
        (None, Some(prefix)) => Subject::Prefix(prefix),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Failure::invalid("a watch of what?", "give one of key and prefix"));
        }
    };
    let after = changes::after(&headers, &params)?;
    changes::stream(&api, KvWatch { namespace: namespace(&params)?, subject, after }).await
}
