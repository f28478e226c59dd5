//! What is read, what is refused, and that pieces never matter.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use proptest::prelude::*;

use super::*;

fn request(text: &str) -> Result<Option<Request>, Malformed> {
    read_request(&mut HeadReader::default(), &mut BytesMut::from(text))
}

fn response(method: &Method, text: &str) -> Result<Option<Response>, Malformed> {
    read_response(&mut HeadReader::default(), &mut BytesMut::from(text), method)
}

/// A request with these lines behind a good first line and Host.
fn with(lines: &str) -> Result<Option<Request>, Malformed> {
    request(&format!("POST /a HTTP/1.1\r\nHost: web\r\n{lines}\r\n"))
}

#[test]
fn a_request_is_read() {
    let read = request("GET /a?b=c HTTP/1.1\r\nHost: web:80\r\nAccept:  */* \r\nX:\r\n\r\n");
    let read = read.expect("well formed").expect("whole");
    assert_eq!(read.method, Method::GET);
    assert_eq!(read.target, "/a?b=c");
    assert_eq!(read.host, "web:80");
    assert_eq!(read.headers["accept"], "*/*");
    assert_eq!(read.headers["x"], "");
    assert_eq!(read.framing, Framing::None);
}

#[test]
fn odd_but_good_requests_are_read() {
    for text in [
        "\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET //a/../b?x=%00 HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: web\r\n\r\n",
        "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n",
        "CONNECT [fd00::1]:80 HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\ntransfer-encoding:CHUNKED\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\r\nX: caf\u{e9}\r\n\r\n",
    ] {
        assert!(matches!(request(text), Ok(Some(_))), "{text:?}: {:?}", request(text));
    }
}

#[test]
fn what_two_readers_may_read_differently_is_refused() {
    let first = |line: &str| request(&format!("{line}\r\nHost: web\r\n\r\n"));
    for (read, expected) in [
        (with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), Malformed::TwoLengths),
        (with("Content-Length: 1\r\nContent-Length: 1\r\n"), Malformed::ContentLength),
        (with("Content-Length: 1, 1\r\n"), Malformed::ContentLength),
        (with("Content-Length: +1\r\n"), Malformed::ContentLength),
        (with("Content-Length: 0x1\r\n"), Malformed::ContentLength),
        (with("Content-Length:\r\n"), Malformed::ContentLength),
        (with("Content-Length: 18446744073709551616\r\n"), Malformed::ContentLength),
        (with("Transfer-Encoding: gzip, chunked\r\n"), Malformed::TransferEncoding),
        (with("Transfer-Encoding: chunked, identity\r\n"), Malformed::TransferEncoding),
        (with("Transfer-Encoding: xchunked\r\n"), Malformed::TransferEncoding),
        (
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Malformed::TransferEncoding,
        ),
        (with("Transfer-Encoding: \u{b}chunked\r\n"), Malformed::FieldValue),
        (with("Transfer-Encoding : chunked\r\n"), Malformed::FieldName),
        (with("X: 1\r\n folded\r\n"), Malformed::Folded),
        (with("X: 1\r\n\tfolded\r\n"), Malformed::Folded),
        (with("X: 1\nY: 2\r\n"), Malformed::LineEnd),
        (with("X: 1\r2\r\n"), Malformed::FieldValue),
        (with("X: 1\u{0}\r\n"), Malformed::FieldValue),
        (with("no colon\r\n"), Malformed::FieldName),
        (with(": no name\r\n"), Malformed::FieldName),
        (with("Host: other\r\n"), Malformed::Host),
        (request("GET / HTTP/1.1\r\nX: 1\r\n\r\n"), Malformed::Host),
        (request("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), Malformed::Host),
        (request("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), Malformed::Host),
        (request("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), Malformed::Host),
        (first("GET http://web/ HTTP/1.1"), Malformed::Target),
        (first("GET web HTTP/1.1"), Malformed::Target),
        (first("GET * HTTP/1.1"), Malformed::Target),
        (first("GET /a#b HTTP/1.1"), Malformed::Target),
        (first("GET /a\u{1} HTTP/1.1"), Malformed::Target),
        (first("CONNECT web HTTP/1.1"), Malformed::Target),
        (first("CONNECT :80 HTTP/1.1"), Malformed::Target),
        (first("CONNECT a@web:80 HTTP/1.1"), Malformed::Target),
        (first("CONNECT /web:80 HTTP/1.1"), Malformed::Target),
        (first("CONNECT http://web:80/ HTTP/1.1"), Malformed::Target),
        (first("CONNECT other:80 HTTP/1.1"), Malformed::Host),
        (
            request("CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nContent-Length: 1\r\n\r\n"),
            Malformed::ConnectBody,
        ),
        (
            request(
                "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            Malformed::ConnectBody,
        ),
        (first("GET  / HTTP/1.1"), Malformed::RequestLine),
        (first("GET / HTTP/1.1 "), Malformed::RequestLine),
        (first("GET /a b HTTP/1.1"), Malformed::RequestLine),
        (first("GET\t/ HTTP/1.1"), Malformed::RequestLine),
        (first("GET /"), Malformed::RequestLine),
        (first("G(T / HTTP/1.1"), Malformed::RequestLine),
        (first("GET / HTTP/1.2"), Malformed::Version),
        (first("GET / HTTP/2.0"), Malformed::Version),
        (first("GET / HTTP/1.1\r"), Malformed::Version),
        (
            request("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Malformed::TransferEncoding,
        ),
        (request("GET / HTTP/1.1\nHost: web\n\n"), Malformed::LineEnd),
        (request("\nGET / HTTP/1.1\r\nHost: web\r\n\r\n"), Malformed::LineEnd),
    ] {
        assert_eq!(read.expect_err("refused"), expected);
    }
}

#[test]
fn heads_have_limits() {
    let many = "X: 1\r\n".repeat(MAX_FIELDS);
    assert_eq!(with(&many).expect_err("too many"), Malformed::TooLarge);
    assert!(with(&"X: 1\r\n".repeat(MAX_FIELDS - 1)).is_ok());
    let large = format!("X: {}\r\n", "a".repeat(MAX_HEAD));
    assert_eq!(with(&large).expect_err("too large"), Malformed::TooLarge);
    let endless = format!("GET /{}", "a".repeat(MAX_HEAD));
    assert_eq!(request(&endless).expect_err("too large"), Malformed::TooLarge);
    assert_eq!(Malformed::TooLarge.status(), 431);
    assert_eq!(Malformed::TwoLengths.status(), 400);
}

#[test]
fn the_framing_of_a_response_depends_on_the_request_and_the_status() {
    let of = |method: Method, text: &str| {
        response(&method, text).map(|read| read.expect("whole").framing)
    };
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(of(Method::GET, length), Ok(Framing::Length(5)));
    assert_eq!(of(Method::HEAD, length), Ok(Framing::None));
    assert_eq!(of(Method::GET, "HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n"), Ok(Framing::None));
    assert_eq!(of(Method::GET, "HTTP/1.1 204\r\n\r\n"), Ok(Framing::None));
    assert_eq!(of(Method::GET, "HTTP/1.1 100 Continue\r\n\r\n"), Ok(Framing::None));
    assert_eq!(of(Method::GET, "HTTP/1.0 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of(Method::GET, chunked), Ok(Framing::Chunked));
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of(Method::GET, both), Err(Malformed::TwoLengths));
}

#[test]
fn status_lines_are_checked() {
    let read = |line: &str| response(&Method::GET, &format!("{line}\r\nA: b\r\n\r\n"));
    let good = read("HTTP/1.1 404 Not Found").expect("good").expect("whole");
    assert_eq!((good.status, &good.reason[..]), (StatusCode::NOT_FOUND, &b"Not Found"[..]));
    for line in
        ["HTTP/1.1 20", "HTTP/1.1  200", "HTTP/1.1 2000", "HTTP/1.1 099", "HTTP/1.1 600 x", "200"]
    {
        assert_eq!(read(line).expect_err(line), Malformed::StatusLine, "{line}");
    }
    assert_eq!(read("HTTP/3.0 200 OK").expect_err("refused"), Malformed::Version);
}

fn take(text: &str, version: Version) -> (HeaderMap, Persistence) {
    let text = format!("GET / HTTP/1.1\r\nHost: web\r\n{text}\r\n");
    let mut headers = request(&text).expect("well formed").expect("whole").headers;
    let persistence = take_hop_by_hop(&mut headers, version);
    (headers, persistence)
}

#[test]
fn fields_of_one_hop_go_no_further() {
    let (headers, persistence) = take(
        "Connection: close, X-Mine, Content-Length\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
         TE: trailers, deflate\r\nX-Mine: 1\r\nContent-Length: 3\r\nX-Yours: 2\r\nUpgrade: x\r\n",
        Version::HTTP_11,
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "te", "x-yours"]);
    assert_eq!(headers["te"], "trailers");
    assert_eq!(persistence, Persistence { keep_alive: false, upgrade: None });
}

#[test]
fn persistence_follows_version_and_options() {
    let keep = |text: &str, version| take(text, version).1.keep_alive;
    assert!(keep("", Version::HTTP_11));
    assert!(!keep("", Version::HTTP_10));
    assert!(keep("Connection: Keep-Alive\r\n", Version::HTTP_10));
    assert!(!keep("Connection: keep-alive\r\nConnection: CLOSE\r\n", Version::HTTP_11));
    let upgrade = |protocol: &str, version| {
        let text = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        take(&text, version).1.upgrade
    };
    let websocket = HeaderValue::from_static("websocket");
    assert_eq!(upgrade("websocket", Version::HTTP_11), Some(websocket));
    assert_eq!(upgrade("websocket", Version::HTTP_10), None);
    assert_eq!(upgrade("h2c", Version::HTTP_11), None);
}

/// Data, trailers, and what is left behind the body.
type Body = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// Reads a whole body that arrives in `pieces`.
fn body(framing: Framing, pieces: &[&[u8]]) -> Result<Body, Malformed> {
    let mut decoder = Decoder::new(framing);
    let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !decoder.is_ended() {
            match decoder.read(&mut buffer)? {
                None => break,
                Some(Frame::Data(more)) => data.extend_from_slice(&more),
                Some(Frame::End(end)) => trailers = end,
            }
        }
    }
    Ok((data, trailers, buffer.to_vec()))
}

#[test]
fn bodies_end_where_they_should() {
    let read = |framing, text: &str| body(framing, &[text.as_bytes()]).expect("well formed");
    assert_eq!(read(Framing::Length(3), "abcGET"), (b"abc".into(), None, b"GET".into()));
    assert_eq!(read(Framing::UntilClose, "abc").0, b"abc");
    let (data, trailers, rest) =
        read(Framing::Chunked, "3\r\nabc\r\n00B\r\nhello world\r\n0\r\nX: 1\r\nHost: a\r\n\r\nGET");
    assert_eq!((data, rest), (b"abchello world".into(), b"GET".into()));
    let trailers = trailers.expect("there are some");
    assert_eq!((trailers.len(), &trailers["x"]), (1, &HeaderValue::from_static("1")));
}

#[test]
fn chunks_that_may_be_read_differently_are_refused() {
    for text in [
        "3;ext=1\r\nabc\r\n",
        "3 \r\nabc\r\n",
        " 3\r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "\r\nabc\r\n",
        "g\r\n",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "3\r\nabc\rx",
        "00000000000000003\r\nabc\r\n",
        "FFFFFFFFFFFFFFFFF",
    ] {
        assert_eq!(body(Framing::Chunked, &[text.as_bytes()]), Err(Malformed::Chunk), "{text:?}");
    }
    for text in ["0\r\nX: 1\n\r\n", "0\r\n\n"] {
        assert_eq!(body(Framing::Chunked, &[text.as_bytes()]), Err(Malformed::LineEnd), "{text:?}");
    }
    assert_eq!(body(Framing::Chunked, &[b"0\r\n\rX"]), Err(Malformed::Chunk));
}

#[test]
fn messages_are_written_as_understood() {
    let text = "POST /a HTTP/1.1\r\nhost: web\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut read = request(text).expect("well formed").expect("whole");
    let persistence = take_hop_by_hop(&mut read.headers, read.version);
    let mut out = BytesMut::new();
    write_request(
        &mut out,
        &read.method,
        &read.target,
        &read.host,
        &read.headers,
        read.framing,
        &persistence,
    );
    write_chunk(&mut out, b"hello world");
    end_chunks(&mut out, None);
    assert_eq!(out, format!("{text}b\r\nhello world\r\n0\r\n\r\n"));
}

#[test]
fn a_head_request_is_told_the_length_it_did_not_get() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    let mut read = response(&Method::HEAD, text).expect("well formed").expect("whole");
    let persistence = take_hop_by_hop(&mut read.headers, read.version);
    let mut out = BytesMut::new();
    write_response(&mut out, read.status, &read.reason, &read.headers, read.framing, &persistence);
    assert_eq!(out, text);
}

/// Splits at any places.
fn pieces<'t>(text: &'t [u8], cuts: &[prop::sample::Index]) -> Vec<&'t [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn a_head_in_pieces_is_the_same_head(
        text in "(GET|POST) /[a-z]{0,3} HTTP/1\\.[01]\r?\n(Host: a\r\n)?([XY]: ?[a-c]{0,3}\r\n){0,4}\r\n[A-Z]{0,5}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut whole = BytesMut::from(&*text);
        let at_once = read_request(&mut HeadReader::default(), &mut whole);
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        let mut in_pieces = Ok(None);
        for piece in pieces(text.as_bytes(), &cuts) {
            buffer.extend_from_slice(piece);
            if matches!(in_pieces, Ok(None)) {
                in_pieces = read_request(&mut reader, &mut buffer);
            }
        }
        prop_assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
        if at_once.is_ok() {
            prop_assert_eq!(whole, buffer);
        }
    }

    #[test]
    fn chunks_in_pieces_are_the_same_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
        trailer in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut text = BytesMut::new();
        chunks.iter().for_each(|chunk| write_chunk(&mut text, chunk));
        let trailers = trailer.then(|| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x", HeaderValue::from_static("1"));
            trailers
        });
        end_chunks(&mut text, trailers.as_ref());
        text.extend_from_slice(b"rest");
        let read = body(Framing::Chunked, &pieces(&text, &cuts)).expect("well formed");
        prop_assert_eq!(read, (chunks.concat(), trailers, b"rest".to_vec()));
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&*bytes);
        let _ = read_request(&mut HeadReader::default(), &mut buffer.clone());
        let _ = read_response(&mut HeadReader::default(), &mut buffer.clone(), &Method::GET);
        let mut decoder = Decoder::new(Framing::Chunked);
        while let Ok(Some(Frame::Data(_))) = decoder.read(&mut buffer) {}
    }

    #[test]
    fn what_is_accepted_is_written_so_that_it_reads_the_same(
        text in "(GET|POST) /[ -~]{0,6} HTTP/1\\.[01]\r\nHost: [a-z:0-9]{0,4}\r\n((Connection|X|TE|Upgrade|Content-Length|Transfer-Encoding): ?(close|upgrade|x|trailers|chunked|7|[ -~]{0,5})\r\n){0,4}\r\n",
    ) {
        let Ok(Some(mut first)) = request(&text) else { return Ok(()) };
        let persistence = take_hop_by_hop(&mut first.headers, first.version);
        let mut out = BytesMut::new();
        let Request { method, target, host, headers, framing, .. } = &first;
        write_request(&mut out, method, target, host, headers, *framing, &persistence);
        let again = read_request(&mut HeadReader::default(), &mut out);
        let mut again = again.expect("we write well").expect("we write wholly");
        prop_assert_eq!(&again.framing, framing);
        let hop = take_hop_by_hop(&mut again.headers, again.version);
        prop_assert_eq!(hop, persistence);
        prop_assert_eq!((&again.method, &again.target, &again.host), (method, target, host));
        prop_assert!(out.is_empty());
        let _: Bytes = out.freeze();
    }
}
