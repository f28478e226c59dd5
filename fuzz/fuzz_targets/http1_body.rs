//! Bodies of HTTP/1.1: in one piece or in several they are the same, and written anew they read the
//! same.

#![no_main]

use bytes::BytesMut;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use mesh_agent::http1::{Decoder, Frame, Framing, Malformed, end_chunks, write_chunk};

/// Data, trailers once it has ended, and what is left behind it.
type Body = (Vec<u8>, Option<Option<HeaderMap>>, Vec<u8>);

fuzz_target!(|input: (u8, u16, u16, &[u8])| {
    let (kind, one, other, text) = input;
    let framing = match kind % 4 {
        0 => Framing::Length(u64::from(one)),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let cut = |at: u16| usize::from(at) % (text.len() + 1);
    let (first, second) = (cut(one).min(cut(other)), cut(one).max(cut(other)));
    let whole = read(framing, &[text]);
    let in_pieces = read(framing, &[&text[..first], &text[first..second], &text[second..]]);
    assert_eq!(whole, in_pieces, "pieces matter");
    let Ok((data, Some(trailers), _)) = whole else { return };

    let mut out = BytesMut::new();
    if !data.is_empty() {
        write_chunk(&mut out, &data);
    }
    end_chunks(&mut out, trailers.as_ref());
    let (again, _, rest) = read(Framing::Chunked, &[&out]).expect("we write well");
    assert_eq!((again, rest), (data, Vec::new()));
});

fn read(framing: Framing, pieces: &[&[u8]]) -> Result<Body, Malformed> {
    let mut decoder = Decoder::new(framing);
    let (mut buffer, mut data, mut end) = (BytesMut::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while end.is_none() {
            match decoder.read(&mut buffer)? {
                None => break,
                Some(Frame::Data(more)) => {
                    assert!(!more.is_empty(), "a piece without anything in it");
                    data.extend_from_slice(&more);
                }
                Some(Frame::End(trailers)) => end = Some(trailers),
            }
        }
    }
    Ok((data, end, buffer.to_vec()))
}
