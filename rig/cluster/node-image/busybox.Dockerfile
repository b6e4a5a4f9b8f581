# A shell userland; Debian's busybox is dynamic, so that names resolve.
ARG BASE
FROM ${BASE}
RUN busybox --install -s /usr/local/bin
CMD ["sh"]
