# The server alone, as an unprivileged user, without a shell.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin hithed && mkdir -p /out/state && cp target/release/hithed /out/hithed

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/hithed /usr/local/bin/hithed
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/hithed
ENV HITHED_STATE_DIR=/var/lib/hithed
VOLUME /var/lib/hithed
EXPOSE 2222 8080 8443 20000-20999
# Running visits are finished within --grace; give `docker stop` a longer time than that.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/hithed"]
CMD ["serve"]
