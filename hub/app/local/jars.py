"""Kafka's published jars, fetched once per version with Maven into a cache folder outside any checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from hub.app.local.process import LocalUnavailable, program

KAFKA_VERSION = "4.1.0"

_LOGGING = "2.24.3"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>numhub.local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{logging}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numhub"


def kafka_jars(version: str = KAFKA_VERSION, *, cache: Path | None = None) -> Path:
    """The folder with the jars of this version; the first call downloads them. Raises LocalUnavailable.

    The folder appears by a rename when it is whole, so that two processes that fetch at once cannot half-fill it.
    """
    cache = cache or cache_folder()
    jars = cache / f"kafka-{version}"
    if jars.is_dir():
        return jars
    maven = program("mvn", "maven")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".kafka-{version}-") as scratch:
        pom, fresh = Path(scratch, "pom.xml"), Path(scratch, "jars")
        pom.write_text(_POM.format(version=version, logging=_LOGGING), encoding="utf-8")
        command = [maven, "-q", "-B", "-f", str(pom), _COPY, f"-DoutputDirectory={fresh}", "-DincludeScope=runtime"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode or not (fresh / f"kafka_2.13-{version}.jar").is_file():
            raise LocalUnavailable(f"Kafka {version} could not be fetched with mvn: {_reason(done.stdout)}")
        if not jars.is_dir():
            try:
                fresh.rename(jars)
            except OSError:
                if not jars.is_dir():
                    raise
    return jars


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    places = (Path(home) / "bin",) if home else ()
    return program("java", "openjdk-17-jre-headless", *places)


def _reason(output: str) -> str:
    errors = [line for line in output.splitlines() if "ERROR" in line]
    return (errors or ["it said nothing"])[0].replace("[ERROR]", "").strip()[:300]
