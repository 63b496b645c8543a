//! What mirrors (and sources) answer for the images of a list, for `rules lint --check-mirror`. Only reads.

use std::sync::Arc;

use airlock_client::{Client, Options, RegistriesConf, RegistrySource};
use airlock_oci::{Error, ErrorKind, Reference, Shape, Source};
use airlock_rules::convert::images::Listed;
use airlock_rules::lint::{Input, Observed};
use airlock_rules::render::{Base, Effective};
use futures_util::{StreamExt, TryStreamExt};

use crate::args::rules::LintArgs;
use crate::exit::Failure;

/// Questions asked at the same time.
const PARALLEL: usize = 8;

/// Asks the first mirror of each image.
pub(super) async fn observe(input: &Input, args: &LintArgs) -> Result<Vec<Observed>, Failure> {
    let base = input.base.clone().unwrap_or_else(Base::of_pools);
    let config = Effective::of(&input.objects, &base, input.payload.as_ref())
        .and_then(|lists| lists.render(&input.objects, &base))
        .map_err(Failure::from)?
        .config()
        .map_err(|e| Failure::usage(format!("the rules cannot be used: {e}"), "run without --check-mirror first"))?;
    let client = |verify: bool| -> Result<Arc<dyn Source>, Failure> {
        let options = Options {
            authfile: args.authfile.clone(),
            tls_verify: verify,
            registries_conf: RegistriesConf::Ignore,
            ..Options::default()
        };
        Ok(Arc::new(RegistrySource::new(Client::new(options)?)))
    };
    let (strict, lax) = (client(args.tls_verify.unwrap_or(true))?, client(false)?);
    let images = input.images.as_ref().map_or(&[][..], |(_, images)| images);
    let questions = images.iter().filter_map(|image| {
        let endpoints = config.endpoints(&image.reference.clone().pulled()).ok()?;
        let first = endpoints.into_iter().find(|endpoint| !endpoint.is_source && !endpoint.blocked)?;
        let source = if first.insecure { Arc::clone(&lax) } else { Arc::clone(&strict) };
        let upstream = args.check_source.then(|| Arc::clone(&strict));
        Some(ask(image, first.reference, source, upstream))
    });
    let answers = futures_util::stream::iter(questions).buffered(PARALLEL).try_collect::<Vec<_>>().await?;
    Ok(answers)
}

async fn ask(
    image: &Listed,
    mirror: Reference,
    source: Arc<dyn Source>,
    upstream: Option<Arc<dyn Source>>,
) -> Result<Observed, Error> {
    let mut seen = Observed { written: image.written.clone(), mirror: mirror.to_string(), ..Observed::default() };
    if mirror.digest().is_some() {
        seen.has_digest = Some(absent(source.resolve(&mirror).await)?.is_some());
    }
    let tag = image.reference.tag().cloned();
    if let Some(tag) = tag.or_else(|| mirror.tag().cloned()) {
        let found = absent(source.manifest(&mirror.with_tag(tag)).await)?;
        seen.tag = found.map(|found| {
            let manifest = found.value;
            (manifest.digest().to_string(), manifest.shape() == Shape::Index)
        });
    }
    if let (Some(upstream), None) = (upstream, image.reference.digest()) {
        let name = image.reference.clone().pulled();
        seen.source_tag = absent(upstream.resolve(&name).await)?.map(|found| found.value.to_string());
    }
    Ok(seen)
}

/// What is not there is an answer; anything else that fails ends the command.
fn absent<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
