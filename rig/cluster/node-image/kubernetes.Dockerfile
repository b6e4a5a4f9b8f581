# One image for every Kubernetes program: the program acts as the name it is called by.
ARG BASE
FROM ${BASE}
COPY kubernetes /usr/local/bin/kubernetes
RUN for name in apiserver controller-manager scheduler proxy; do \
        ln -s kubernetes /usr/local/bin/kube-$name; \
    done
