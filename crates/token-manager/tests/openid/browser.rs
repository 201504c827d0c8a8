//! A browser as far as the provider's pages need one: it follows redirects, keeps cookies, and fills in forms the way the
//! user of it wishes. It knows nothing of tokens.

use std::collections::BTreeMap;

use reqwest::header::{ACCEPT, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use url::Url;
use url::form_urlencoded::Serializer;

/// Redirects and pages on one way, by far.
const MOST_STEPS: usize = 30;

/// A browser without cookies from before.
pub(crate) struct Browser {
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

/// Where a way ended.
pub(crate) enum Place {
    /// A page of the provider's.
    Page(String),
    /// An address that is not the provider's: the loopback redirect.
    Elsewhere(Url),
}

impl Place {
    /// The address of one that is not the provider's.
    pub(crate) fn address(self) -> Url {
        match self {
            Self::Elsewhere(url) => url,
            Self::Page(html) => panic!("{html}"),
        }
    }

    /// The provider's page.
    pub(crate) fn page(self) -> String {
        match self {
            Self::Page(html) => html,
            Self::Elsewhere(url) => panic!("{url}"),
        }
    }
}

/// A form as it stands in a page, with what it is filled in with.
struct Form {
    action: Url,
    fields: Vec<(String, String)>,
}

impl Browser {
    /// `http` follows no redirects.
    pub(crate) fn new(http: reqwest::Client) -> Self {
        Self { http, cookies: BTreeMap::new() }
    }

    /// Goes to `url` and on through every page as the user `login`, who consents to everything, types `user_code` where one
    /// is asked for, and stops at the first page without a form.
    pub(crate) async fn go(&mut self, url: &Url, login: &str, user_code: &str) -> Place {
        let mut place = self.open(url, None).await;
        for _ in 0..MOST_STEPS {
            let Place::Page(html) = &place else { return place };
            let Some(form) = form(html, login, user_code) else { return place };
            place = self.send(&form).await;
        }
        panic!("the pages have no end");
    }

    /// Goes to `url`, types `user_code`, and presses Abort on the page that asks whether it is right.
    pub(crate) async fn abort_device(&mut self, url: &Url, user_code: &str) -> String {
        let input = self.open(url, None).await.page();
        let confirm = self.send(&form(&input, "", user_code).unwrap()).await.page();
        assert!(confirm.contains(r#"name="abort""#), "{confirm}");
        let mut form = form(&confirm, "", user_code).unwrap();
        form.fields.push(("abort".to_owned(), "yes".to_owned()));
        self.send(&form).await.page()
    }

    /// Goes to `url`, and follows the link Cancel of the page that asks who the user is.
    pub(crate) async fn cancel(&mut self, url: &Url) -> Place {
        let html = self.open(url, None).await.page();
        let link = html.split("<a ").find(|tag| tag.contains("[ Cancel ]")).unwrap();
        self.open(&Url::parse(&attribute(link, "href").unwrap()).unwrap(), None).await
    }

    async fn send(&mut self, form: &Form) -> Place {
        let body = Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        self.open(&form.action, Some(body)).await
    }

    /// A page, or where its redirects lead to.
    async fn open(&mut self, url: &Url, mut body: Option<String>) -> Place {
        let mut url = url.clone();
        let provider = url.authority().to_owned();
        for _ in 0..MOST_STEPS {
            if url.authority() != provider {
                return Place::Elsewhere(url);
            }
            let request = match body.take() {
                Some(body) => {
                    let request = self.http.post(url.clone()).body(body);
                    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                }
                None => self.http.get(url.clone()),
            };
            let response = request.header(ACCEPT, "text/html").header(COOKIE, self.cookies()).send().await.unwrap();
            self.keep_cookies(response.headers());
            if !response.status().is_redirection() {
                return Place::Page(response.text().await.unwrap());
            }
            url = url.join(response.headers()[LOCATION].to_str().unwrap()).unwrap();
        }
        panic!("the redirects have no end");
    }

    fn cookies(&self) -> String {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Paths are no matter: one browser is for one sign-in. One without a value is one that is taken away.
    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// The form of a page, filled in; none when it has none.
fn form(html: &str, login: &str, user_code: &str) -> Option<Form> {
    let (_, form) = html.split_once("<form ")?;
    let (form, _) = form.split_once("</form>")?;
    let action = Url::parse(&attribute(form, "action")?).unwrap();
    let fields = form.split("<input").skip(1).map(|input| {
        let name = attribute(input, "name").unwrap();
        let value = match name.as_str() {
            "login" => login.to_owned(),
            "password" => "any".to_owned(),
            "user_code" => user_code.to_owned(),
            _ => attribute(input, "value").unwrap_or_default(),
        };
        (name, value)
    });
    Some(Form { action, fields: fields.collect() })
}

/// The value of an attribute in the tag that `html` begins with.
fn attribute(html: &str, name: &str) -> Option<String> {
    let tag = html.split('>').next()?;
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    value.split('"').next().map(str::to_owned)
}
