# nginx-acme in place of nginx in the official image, or in one that is made like it:
#
#   docker build -t nginx-acme .
#   docker run -p 80:80 -p 443:443 -v nginx-acme:/var/lib/nginx-acme -v ./nginx.conf:/etc/nginx/nginx.conf:ro nginx-acme
#
# The launcher is called nginx and stands earlier on PATH than nginx itself: the image's entrypoint
# prepares its templates only for a command of that name, and `docker exec … nginx -s reload` means
# the launcher, too.

ARG BASE=nginx:stable

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv
WORKDIR /src
COPY requirements.txt .
RUN python3 -m venv /pip \
    && python3 -m venv --without-pip /opt/nginx-acme \
    && /pip/bin/pip --python /opt/nginx-acme/bin/python install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY nginx_acme nginx_acme
RUN /pip/bin/pip --python /opt/nginx-acme/bin/python install --no-cache-dir --no-deps .

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && ln -s /opt/nginx-acme/bin/nginx-acme /usr/local/bin/nginx-acme \
    && ln -s /opt/nginx-acme/bin/nginx-acme /usr/local/sbin/nginx
COPY --from=build /opt/nginx-acme /opt/nginx-acme
ENV NGINX_ACME_STATE_PATH=/var/lib/nginx-acme
EXPOSE 443
VOLUME /var/lib/nginx-acme
# Renews what is due. That it could not is no reason to call nginx unhealthy, and to restart it.
HEALTHCHECK --interval=1h --timeout=10m CMD nginx-acme renew || true
