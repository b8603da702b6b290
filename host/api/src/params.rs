//! Paths and query strings, read strictly: a parameter that a route does not know
//! is refused by name, since ignoring it would answer another question.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use quorate_types::door::Consistency;
use quorate_types::nearest::nearest;

use crate::failure::Failure;

/// The query string.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Params {
    /// Refuses every name that is not in `known`.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, Failure> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(self),
            Some((name, _)) => Err(Failure::invalid(
                format!("there is no query parameter `{name}` here"),
                unknown(name, known),
            )),
        }
    }

    /// Each value given for this name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    /// The value of this name; refused where it is given twice or does not parse.
    pub(crate) fn one<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let mut given = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
        let Some(value) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            return Err(Failure::invalid(
                format!("the query parameter `{name}` is given twice"),
                "give it once",
            ));
        }
        parsed(&format!("the query parameter `{name}`"), value).map(Some)
    }

    /// `consistency=linearizable|stale`.
    pub(crate) fn consistency(&self) -> Result<Consistency, Failure> {
        match self.one::<String>("consistency")?.as_deref() {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("stale") => Ok(Consistency::Stale),
            Some(other) => Err(Failure::invalid(
                format!("`{other}` is no consistency"),
                "ask for `linearizable` (the default) or `stale`",
            )),
        }
    }
}

/// A value in its type, or a failure that says where it stood.
pub(crate) fn parsed<T: FromStr<Err: Display>>(place: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| {
        Failure::invalid(format!("{place} is wrong: {error}"), "correct it and send it again")
    })
}

/// What to type instead of a name that is not known.
pub(crate) fn unknown(name: &str, known: &[&str]) -> String {
    match (nearest(name, known.iter().copied()), known) {
        (Some(near), _) => format!("did you mean `{near}`? known are: {}", known.join(", ")),
        (None, []) => "leave it out".to_owned(),
        (None, _) => format!("known are: {}", known.join(", ")),
    }
}

/// The one variable segment of a path.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: FromStr<Err: Display>, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|bad| {
            Failure::invalid(format!("the path is wrong: {bad}"), "encode it as UTF-8")
        })?;
        parsed("the path", &text).map(Named)
    }
}
