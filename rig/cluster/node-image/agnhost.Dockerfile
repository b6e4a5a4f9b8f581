# Upstream's test program on a userland with a shell.
ARG BASE
FROM ${BASE}
COPY agnhost localhost.crt localhost.key /
RUN mkdir -p /uploads && ln -s agnhost /agnhost-2
ENTRYPOINT ["/agnhost"]
CMD ["pause"]
