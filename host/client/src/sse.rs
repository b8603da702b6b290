//! Server-sent events (WHATWG HTML, section 9.2), as far as our own door uses them:
//! fields `id`, `event` and `data`, comments, and lines that end in LF or CRLF.

use std::time::Duration;

use reqwest::Response;

/// A door comments every 10 s; three missed, and it is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The largest frame, bytes: a task with 64 KiB of input, 64 KiB of result, both as base64, and
/// labels fit several times over.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Why a stream gives no more.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It ended, broke, or fell silent: read on elsewhere.
    Lost,
    /// It is not what was asked for.
    Garbled(&'static str),
}

/// Frames from bytes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    frame: Frame,
    has_data: bool,
}

impl Lines {
    /// More bytes; the frames that they complete are appended to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), Broken> {
        self.buffer.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.buffer[begin..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer[begin..begin + length].to_vec();
            begin += length + 1;
            let line = String::from_utf8(line).map_err(|_bad| Broken::Garbled("not UTF-8"))?;
            self.line(line.trim_end_matches('\r'), out);
        }
        self.buffer.drain(..begin);
        if self.buffer.len() + self.frame.data.len() > FRAME_BYTES_MAX {
            return Err(Broken::Garbled("an event is too large"));
        }
        Ok(())
    }

    fn line(&mut self, line: &str, out: &mut Vec<Frame>) {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if std::mem::take(&mut self.has_data) {
                out.push(frame);
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.frame.id = value.to_owned(),
            "event" => self.frame.event = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // A comment has no name; other fields are for browsers.
            _other => {}
        }
    }
}

/// Frames from a response.
#[derive(Debug)]
pub(crate) struct Frames {
    response: Response,
    lines: Lines,
    ready: std::collections::VecDeque<Frame>,
}

impl Frames {
    pub(crate) fn of(response: Response) -> Self {
        Self { response, lines: Lines::default(), ready: std::collections::VecDeque::new() }
    }

    /// The next frame. Loses nothing if it is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Frame, Broken> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(frame);
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let Ok(Ok(Some(bytes))) = chunk else { return Err(Broken::Lost) };
            let mut frames = Vec::new();
            self.lines.push(&bytes, &mut frames)?;
            self.ready.extend(frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_their_bytes() {
        let text = ": alive\n\nid: 7\r\nevent: task\r\ndata: {\"a\":\r\ndata: \"é\"}\r\n\r\nretry: 5\n\ndata\n\n";
        let expected = [
            Frame { id: "7".into(), event: "task".into(), data: "{\"a\":\n\"é\"}".into() },
            Frame::default(),
        ];
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut frames = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk, &mut frames).expect("sound text");
            }
            assert_eq!(frames, expected, "cut into {size}");
        }
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; FRAME_BYTES_MAX / 2];
        assert!(lines.push(&chunk, &mut Vec::new()).is_ok());
        assert!(lines.push(&chunk, &mut Vec::new()).is_ok());
        let refused = lines.push(b"x", &mut Vec::new());
        assert!(matches!(refused, Err(Broken::Garbled(_))), "{refused:?}");
    }
}
