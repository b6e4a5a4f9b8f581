# A kind node from kind's own files, Debian packages and programs built from Go modules.
ARG BASE
FROM ${BASE}
COPY files/ /
COPY bin/ /usr/local/bin/
COPY cni/ /opt/cni/bin/
ARG KUBERNETES
ARG PAUSE
RUN set -e; \
    chmod 755 /kind /kind/bin /kind/bin/* /usr/local/bin/* /opt/cni/bin/*; \
    # Units that make no sense in a container.
    find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete; \
    rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \
        /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/basic.target.wants/* \
        /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl*; \
    echo "ReadKMsg=no" >> /etc/systemd/journald.conf; \
    ln -sf /usr/lib/systemd/systemd /sbin/init; \
    systemctl enable kubelet.service containerd.service undo-mount-hacks.service; \
    systemctl mask systemd-binfmt.service; \
    mkdir -p /etc/kubernetes/manifests /kind/manifests; \
    for name in kubeadm kubelet kubectl; do ln -sf /usr/local/bin/kubernetes /usr/bin/$name; done; \
    ln -sf /usr/sbin/runc /usr/local/sbin/runc; \
    # Scores below its parent's need a capability that not every machine grants.
    sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
        -e "s#sandbox_image = .*#sandbox_image = \"${PAUSE}\"#" /etc/containerd/config.toml; \
    ctr oci spec \
        | jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"}' \
        | jq 'del(.process.rlimits)' > /etc/containerd/cri-base.json; \
    echo "${KUBERNETES}" > /kind/version; \
    # kind applies what it finds here and wants at least one object; the network
    # and the storage classes are the rig's business.
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: no-default-storage, namespace: kube-public}\n' \
        > /kind/manifests/default-storage.yaml; \
    cp /kind/manifests/default-storage.yaml /kind/manifests/default-cni.yaml
