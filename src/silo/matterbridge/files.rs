//! Files from and to a Matterbridge: in base64 inside of its messages, as a stream.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use footbridge_core::{
    file::File,
    outlet::SendError,
    spool::{Blocks, Spool, Spooled},
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio_util::bytes::{Buf as _, Bytes, BytesMut};

use super::{
    Matterbridge,
    api::{Attached, Extra, FilePost, Post},
    convert::content_of,
    errors::RequestError,
};

/// How much base64 is decoded at once: a multiple of four bytes.
const BLOCK_BYTES: usize = 64 << 10;
/// The end of the JSON of a message with a file.
const JSON_TAIL: &str = "\"}]}}";

impl Matterbridge {
    /// The complete file of a message.
    pub(super) async fn download(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        if let Some(content) = content_of(&file.source) {
            return Ok(spool.seal(decoded(content)?).await?);
        }
        let response = self.media.get(&file.source).await?;
        Ok(spool.seal(response.bytes_stream()).await?)
    }
}

/// Decodes base64 block by block.
fn decoded(
    content: &str,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, SendError> {
    let blocks = content.as_bytes().chunks(BLOCK_BYTES);
    let blocks: Result<Vec<_>, _> = blocks.map(|block| STANDARD.decode(block)).collect();
    let blocks = blocks.map_err(|_| SendError::Refused {
        reason: "the content of the file is not base64".to_owned(),
    })?;
    Ok(stream::iter(
        blocks.into_iter().map(|block| Ok(block.into())),
    ))
}

/// The JSON of a message with a file: its length in bytes, and the bytes.
pub(super) fn message_with(
    post: Post<'_>,
    name: &str,
    comment: &str,
    file: &Spooled,
) -> Result<(u64, Blocks), RequestError> {
    let refused = |why: &dyn ToString| RequestError::Refused(why.to_string());
    let extra = Extra {
        file: [Attached {
            name,
            comment,
            data: "",
        }],
    };
    let mut head = serde_json::to_string(&FilePost { post, extra }).map_err(|why| refused(&why))?;
    if !head.ends_with(JSON_TAIL) {
        return Err(refused(&"the message cannot be serialized"));
    }
    head.truncate(head.len() - JSON_TAIL.len());
    let blocks = file.decrypted().map_err(|why| refused(&why))?;
    let length = head.len() as u64 + file.length().div_ceil(3) * 4 + JSON_TAIL.len() as u64;
    let head = stream::once(async { Ok(Bytes::from(head)) });
    let end = stream::once(async { Ok(Bytes::from(JSON_TAIL)) });
    Ok((length, head.chain(encoded(blocks)).chain(end).boxed()))
}

/// The same bytes as base64.
fn encoded(blocks: Blocks) -> Blocks {
    stream::try_unfold(
        (blocks, BytesMut::new()),
        |(mut blocks, mut left)| async move {
            while let Some(block) = blocks.try_next().await? {
                left.extend_from_slice(&block);
                let whole = left.len() / 3 * 3;
                if whole > 0 {
                    let text = STANDARD.encode(left.get(..whole).unwrap_or_default());
                    left.advance(whole);
                    return Ok(Some((Bytes::from(text), (blocks, left))));
                }
            }
            let last = (!left.is_empty()).then(|| Bytes::from(STANDARD.encode(&left)));
            Ok(last.map(|last| (last, (blocks, BytesMut::new()))))
        },
    )
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_with_a_file_is_json_of_the_announced_length() {
        let home = tempfile::tempdir().unwrap();
        let spool = Spool::new(home.path().to_owned(), 1 << 20);
        for length in [0_usize, 1, 2, 3, 200_000] {
            let content: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let text = STANDARD.encode(&content);
            let file = spool.seal(decoded(&text).unwrap()).await.unwrap();
            let post = Post {
                gateway: "gw",
                username: "Ann",
                userid: "@ann:x",
                avatar: "",
                text: "a \"look\"",
                event: "",
            };
            let (said, blocks) = message_with(post, "cat.png", "a \"look\"", &file).unwrap();
            let bytes: Vec<Bytes> = blocks.try_collect().await.unwrap();
            let bytes = bytes.concat();
            assert_eq!(bytes.len() as u64, said);
            let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(json["gateway"], "gw");
            assert_eq!(json["Extra"]["file"][0]["Data"], text.as_str());
            assert_eq!(json["Extra"]["file"][0]["Comment"], "a \"look\"");
        }
    }

    #[test]
    fn c16_what_is_no_base64_is_refused() {
        assert!(decoded("aGVs bG8").is_err() && decoded("a").is_err());
    }
}
