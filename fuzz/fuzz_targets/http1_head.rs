//! Heads of HTTP/1.1: in one piece or two they are the same, and what is accepted is written so that
//! it reads the same.

#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use mesh_agent::http1::{
    HeadReader, read_request, read_response, take_hop_by_hop, write_request, write_response,
};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, text) = input;
    request(usize::from(cut), text);
    for method in [Method::GET, Method::HEAD] {
        response(&method, text);
    }
});

fn request(cut: usize, text: &[u8]) {
    let mut whole = BytesMut::from(text);
    let read = read_request(&mut HeadReader::default(), &mut whole);
    let (first, second) = text.split_at(cut % (text.len() + 1));
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::from(first));
    let mut in_pieces = read_request(&mut reader, &mut buffer);
    if let Ok(None) = in_pieces {
        buffer.extend_from_slice(second);
        in_pieces = read_request(&mut reader, &mut buffer);
    } else {
        buffer.extend_from_slice(second);
    }
    assert_eq!(format!("{read:?}"), format!("{in_pieces:?}"), "pieces matter");
    let Ok(Some(mut read)) = read else { return };
    assert_eq!(whole, buffer, "what is left behind the head");

    let persistence = take_hop_by_hop(&mut read.headers, read.version);
    let mut out = BytesMut::new();
    let (method, target) = (&read.method, &read.target);
    write_request(&mut out, method, target, &read.host, &read.headers, read.framing, &persistence);
    let again = read_request(&mut HeadReader::default(), &mut out);
    let mut again = again.expect("we write well").expect("we write wholly");
    assert!(out.is_empty(), "more than one message was written");
    assert_eq!((&again.method, &again.target, &again.host), (method, target, &read.host));
    assert_eq!(again.framing, read.framing);
    assert_eq!(take_hop_by_hop(&mut again.headers, again.version), persistence);
}

fn response(method: &Method, text: &[u8]) {
    let read = read_response(&mut HeadReader::default(), &mut BytesMut::from(text), method);
    let Ok(Some(mut read)) = read else { return };
    let persistence = take_hop_by_hop(&mut read.headers, read.version);
    let mut out = BytesMut::new();
    write_response(&mut out, read.status, &read.reason, &read.headers, read.framing, &persistence);
    let again = read_response(&mut HeadReader::default(), &mut out, method);
    let again = again.expect("we write well").expect("we write wholly");
    assert!(out.is_empty(), "more than one message was written");
    assert_eq!((again.status, again.framing), (read.status, read.framing));
}
