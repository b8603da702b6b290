//! Request bodies: never read past their limit or deadline, and explained where
//! they are not the JSON that was wanted.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use quorate_types::Refusal;
use quorate_types::problem::{Problem, ProblemKind};
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::params::unknown;

/// A sender must finish a body within this, and at this pace where the body is large.
const BODY_BASE: Duration = Duration::from_secs(20);
const BODY_BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// A body that is refused is still read for this long, and thrown away: a connection that closes
/// with bytes unread is reset, and the sender would see that in place of the reason.
const LINGER: Duration = Duration::from_secs(2);

/// The length that the head announces, or the limit where it announces none; refused above it.
pub(crate) async fn announced(
    headers: &HeaderMap,
    body: &mut Body,
    what: &str,
    limit: u64,
) -> Result<u64, Failure> {
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(limit) };
    let got = length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    if got <= limit {
        return Ok(got);
    }
    // Whoever asks before it sends has sent nothing.
    if !headers.contains_key(EXPECT) {
        throw_away(body).await;
    }
    Err(too_large(what, got, limit))
}

async fn throw_away(body: &mut Body) {
    let rest = async { while let Some(Ok(_thrown)) = body.frame().await {} };
    // What has not come by then is cut off.
    tokio::time::timeout(LINGER, rest).await.ok();
}

/// The body, at most `limit` bytes of it.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    what: &str,
    limit: u64,
) -> Result<Bytes, Failure> {
    let announced = announced(headers, &mut body, what, limit).await?;
    let patience = BODY_BASE + Duration::from_secs(announced / BODY_BYTES_PER_SECOND_MIN);
    let late = |_elapsed| {
        Failure::from(Problem::new(
            ProblemKind::Timeout,
            format!("{what} did not arrive within {} s", patience.as_secs()),
            "send it again, faster",
        ))
    };
    tokio::time::timeout(patience, gather(body, what, limit)).await.map_err(late)?
}

async fn gather(mut body: Body, what: &str, limit: u64) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::invalid(format!("{what} broke off: {error}"), "send it again, whole")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let got = u64::try_from(whole.len() + data.len()).unwrap_or(u64::MAX);
        if got > limit {
            throw_away(&mut body).await;
            return Err(too_large(what, got, limit));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn too_large(what: &str, got: u64, limit: u64) -> Failure {
    Failure::from(Refusal::TooLarge { what: what.to_owned(), got, limit })
}

/// The value that these bytes hold as JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner())
    })?;
    reader.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

fn explain(path: &str, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    if let Some((name, known)) = unknown_field(&text) {
        // The path of an unknown field is the field itself; what matters is what it stands in.
        let inside =
            path.rsplit_once('.').map_or(String::new(), |(head, _)| format!(" in `{head}`"));
        return Failure::invalid(
            format!("there is no field `{name}`{inside}"),
            unknown(name, &known),
        );
    }
    let place = if path == "." { String::new() } else { format!(" at `{path}`") };
    Failure::invalid(format!("the JSON body is wrong{place}: {text}"), "GET /v1 lists the routes")
}

/// The unknown field and the known ones, from serde's words; none where it complains of something
/// else. Only this function knows those words, and a test holds them.
fn unknown_field(text: &str) -> Option<(&str, Vec<&str>)> {
    let rest = text.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

#[cfg(test)]
mod tests {
    use quorate_types::TaskSpec;
    use quorate_types::http::SubmitMany;

    use super::*;

    fn complaint<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, String) {
        let problem = json::<T>(text.as_bytes()).expect_err("refused").problem().clone();
        (problem.detail, problem.next)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place_and_its_nearest() {
        let (detail, next) = complaint::<TaskSpec>(r#"{"prioritty": 3}"#);
        assert_eq!(detail, "there is no field `prioritty`");
        assert!(next.starts_with("did you mean `priority`?"), "{next}");
        let (detail, next) =
            complaint::<SubmitMany>(r#"{"tasks": [{}, {"retry": {"attempt_max": 3}}]}"#);
        assert_eq!(detail, "there is no field `attempt_max` in `tasks[1].retry`");
        assert!(next.starts_with("did you mean `attempts_max`?"), "{next}");
    }

    #[test]
    fn a_wrong_value_is_placed_and_what_follows_a_value_is_refused() {
        let (detail, _) = complaint::<TaskSpec>(r#"{"priority": "high"}"#);
        assert!(
            detail.starts_with("the JSON body is wrong at `priority`: invalid type"),
            "{detail}"
        );
        let (detail, _) = complaint::<TaskSpec>("{} {}");
        assert!(detail.contains("trailing characters"), "{detail}");
    }
}
