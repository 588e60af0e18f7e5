# Tidegate's device side for Yocto. Written for scarthgap with meta-oe and meta-python; see README.md beside this layer
# for what was tried and what was not.
SUMMARY = "Over-the-air firmware updates for two-slot devices: the device's side"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Where your copy of the repository is.
TIDEGATE_REPOSITORY ?= "git:///srv/git/tidegate.git;protocol=file;branch=main"
SRC_URI = "${TIDEGATE_REPOSITORY}"
SRCREV ?= "${AUTOREV}"
S = "${WORKDIR}/git"

inherit python3-dir systemd

RDEPENDS:${PN} = " \
    python3-core python3-asyncio python3-compression python3-crypt python3-ctypes python3-datetime python3-fcntl \
    python3-io python3-json python3-logging python3-math python3-misc python3-mmap python3-netclient \
    python3-pkgutil python3-resource python3-shell python3-stringold python3-tomllib python3-unixadmin python3-zoneinfo \
    python3-cryptography python3-msgspec python3-securesystemslib python3-tuf python3-zstandard \
    tzdata \
"
RSUGGESTS:${PN} = "libubootenv-bin rauc swupdate e2fsprogs"

SYSTEMD_SERVICE:${PN} = "tidegate-agent.service"
SYSTEMD_AUTO_ENABLE = "enable"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${PYTHON_SITEPACKAGES_DIR}/tidegate
    install -m 0644 ${S}/src/tidegate/__init__.py ${D}${PYTHON_SITEPACKAGES_DIR}/tidegate/
    cp -r --no-preserve=ownership ${S}/src/tidegate/core ${S}/src/tidegate/agent ${D}${PYTHON_SITEPACKAGES_DIR}/tidegate/

    install -d ${D}${bindir}
    printf '#!/bin/sh\nexec %s/python3 -P -m tidegate.agent.main "$@"\n' ${bindir} > ${D}${bindir}/tidegate-agent
    chmod 0755 ${D}${bindir}/tidegate-agent

    install -d ${D}${systemd_system_unitdir} ${D}${nonarch_libdir}/tmpfiles.d
    install -m 0644 ${S}/packaging/tidegate-agent.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${S}/packaging/tidegate-agent.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/tidegate-agent.conf

    install -d ${D}${sysconfdir}/tidegate/agent.toml.d ${D}${sysconfdir}/tidegate/health.d
    install -d ${D}${datadir}/tidegate
    cp -r --no-preserve=ownership ${S}/boot ${D}${datadir}/tidegate/
}

FILES:${PN} += "${PYTHON_SITEPACKAGES_DIR}/tidegate ${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d ${datadir}/tidegate"
