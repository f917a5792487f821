# The server alone, as an unprivileged user, without a shell.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin hithed && mkdir -p /out/state && cp target/release/hithed /out/hithed

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/hithed /usr/local/bin/hithed
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/hithed
ENV HITHED_STATE_DIR=/var/lib/hithed
# For the check below. A load balancer in front needs another address, and asks for /readyz.
ENV HITHED_HEALTH_LISTEN=127.0.0.1:9180
VOLUME /var/lib/hithed
EXPOSE 2222 8080 8443 20000-20999
# Running visits are finished within --grace; give `docker stop` a longer time than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=7s --start-period=10s CMD ["/usr/local/bin/hithed", "health"]
ENTRYPOINT ["/usr/local/bin/hithed"]
CMD ["serve"]
