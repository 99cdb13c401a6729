# docker build -t tollhouse .
# docker run -p 8080:8080 -v ./tollhouse.toml:/etc/tollhouse/tollhouse.toml:ro tollhouse
# In a container, `server.listen` is "0.0.0.0:8080".

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked --bin tollhouse

# libc, libgcc and the CA certificates, nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/tollhouse /usr/local/bin/tollhouse
# Nobody in particular; by number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080
# Asks /readyz of the admin socket, inside the container, without a shell.
HEALTHCHECK --interval=10s --timeout=3s --start-period=35s CMD ["/usr/local/bin/tollhouse", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tollhouse"]
CMD ["run"]
