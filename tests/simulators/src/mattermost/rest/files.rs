//! The calls for files: uploaded as a form or as a plain body, and attached to nothing until a post names them.

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Answer, Call, places};
use crate::mattermost::{
    File, Post,
    world::{ApiError, new_id},
};

const NO_FILE: ApiError = ApiError(
    404,
    "app.file_info.get.app_error",
    "Unable to get the file info.",
);

/// A file that is being uploaded.
pub(super) struct Upload {
    name: String,
    mime: String,
    content: Bytes,
}

/// The files of a request: of a form, whose text fields count as its query, or its body.
pub(super) async fn uploaded(
    kind: &str,
    body: Bytes,
    query: &mut Vec<(String, String)>,
) -> Result<Vec<Upload>, ApiError> {
    const BAD: ApiError = ApiError(
        400,
        "api.file.upload_file.read_form_value.app_error",
        "Error reading the form.",
    );
    let Ok(boundary) = multer::parse_boundary(kind) else {
        let name = query.iter().find(|(key, _)| key == "filename");
        let (_, name) = name.ok_or(ApiError(
            400,
            "api.context.invalid_url_param.app_error",
            "Invalid or missing filename parameter in request URL.",
        ))?;
        return Ok(vec![Upload {
            name: name.clone(),
            mime: String::new(),
            content: body,
        }]);
    };
    let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut form = multer::Multipart::new(stream, boundary);
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|_| BAD)? {
        let key = field.name().unwrap_or_default().to_owned();
        let name = field.file_name().map(str::to_owned);
        let mime = field.content_type().map(ToString::to_string);
        match name {
            Some(name) => files.push(Upload {
                name,
                mime: mime.unwrap_or_default(),
                content: field.bytes().await.map_err(|_| BAD)?,
            }),
            None => query.push((key, field.text().await.map_err(|_| BAD)?)),
        }
    }
    Ok(files)
}

pub(super) fn upload(call: &Call<'_>) -> Answer {
    let channel = call.query("channel_id").unwrap_or_default().to_owned();
    let channel = places::own(call, &channel)?;
    let largest = call.shared.options.largest_file;
    let mut infos = Vec::new();
    for file in &call.files {
        if file.content.len() > largest {
            return Err(ApiError(
                413,
                "api.file.upload_file.too_large_detailed.app_error",
                "Unable to upload file. File is too large.",
            ));
        }
        let made = File {
            id: new_id(),
            name: file.name.clone(),
            mime_type: mime_of(&file.name, &file.mime),
            content: file.content.to_vec(),
            owner: call.me.clone(),
            channel_id: channel.id.clone(),
        };
        infos.push(made.json(&Post::default()));
        let mut inner = call.shared.world.inner();
        inner.files.insert(made.id.clone(), made);
    }
    let ids: Vec<Value> = infos.iter().map(|_| json!("")).collect();
    Ok((
        StatusCode::CREATED,
        json!({ "file_infos": infos, "client_ids": ids }),
    ))
}

/// The server prefers the type that follows from the name.
fn mime_of(name: &str, declared: &str) -> String {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let known = match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "mp4" => "video/mp4",
        "ogg" => "audio/ogg",
        "txt" => "text/plain; charset=utf-8",
        _ if declared.is_empty() => "application/octet-stream",
        _ => declared,
    };
    known.to_owned()
}

pub(super) fn info(call: &Call<'_>) -> Answer {
    let (file, post) = found(call)?;
    Ok((StatusCode::OK, file.json(&post)))
}

/// Never called: its response is not JSON.
pub(super) fn content(_: &Call<'_>) -> Answer {
    Err(NO_FILE)
}

/// The bytes of a file.
pub(super) fn response(call: &Call<'_>) -> Result<Response, ApiError> {
    let (file, _) = found(call)?;
    let kind = HeaderValue::from_str(&file.mime_type);
    let kind = kind.unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    Ok(([(header::CONTENT_TYPE, kind)], file.content).into_response())
}

/// The preview of an image: here, its first bytes.
pub(super) fn preview(call: &Call<'_>) -> Result<Response, ApiError> {
    let (mut file, _) = found(call)?;
    if !file.is_picture() {
        return Err(NO_FILE);
    }
    file.content.truncate(1_000);
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], file.content).into_response())
}

/// The avatar of a user. The default avatar with a letter is empty here.
pub(super) fn picture(call: &Call<'_>) -> Result<Response, ApiError> {
    let inner = call.shared.world.inner();
    let user = inner.users.iter().find(|user| user.id == call.at(0));
    let picture = user.ok_or(ApiError::NO_USER)?.picture.clone();
    let content = picture.map(|(content, _)| content).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "image/png")], content).into_response())
}

/// A file that the caller may see: one of a channel that they are a member of.
fn found(call: &Call<'_>) -> Result<(File, Post), ApiError> {
    let (file, post) = {
        let inner = call.shared.world.inner();
        let file = inner.files.get(call.at(0)).cloned().ok_or(NO_FILE)?;
        let names_it = |post: &&Post| post.file_ids.contains(&file.id) && post.delete_at == 0;
        let post = inner.posts.iter().find(names_it).cloned();
        (file, post.ok_or(NO_FILE)?)
    };
    places::own(call, &post.channel_id)?;
    Ok((file, post))
}
