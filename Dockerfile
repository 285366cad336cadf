# nginx-acme in place of nginx in the official image, or in one that is made like it:
#
#   docker build -t nginx-acme .
#   docker run -p 80:80 -p 443:443 -v nginx-acme:/var/lib/nginx-acme -v ./nginx.conf:/etc/nginx/nginx.conf:ro nginx-acme
#
# The launcher is called nginx and stands earlier on PATH than nginx itself: the image's entrypoint
# prepares its templates only for a command of that name, and `docker exec … nginx -s reload` means
# the launcher, too.
#
# On an image whose nginx is another user than root, say which; the volume is that user's:
#
#   docker build --build-arg BASE=nginxinc/nginx-unprivileged:stable --build-arg NGINX_USER=101 -t nginx-acme .

ARG BASE=nginx:stable

FROM ${BASE} AS build
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv
WORKDIR /src
COPY requirements.txt .
RUN python3 -m venv /pip \
    && python3 -m venv --without-pip /opt/nginx-acme \
    && /pip/bin/pip --python /opt/nginx-acme/bin/python install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY conf/nginx-acme conf/
COPY nginx_acme nginx_acme
RUN /pip/bin/pip --python /opt/nginx-acme/bin/python install --no-cache-dir --no-deps .

FROM ${BASE}
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && ln -s /opt/nginx-acme/bin/nginx-acme /usr/local/bin/nginx-acme \
    && ln -s /opt/nginx-acme/bin/nginx-acme /usr/local/sbin/nginx
COPY --from=build /opt/nginx-acme /opt/nginx-acme
COPY conf/healthcheck.sh /usr/local/bin/nginx-acme-healthcheck
LABEL org.opencontainers.image.title="nginx-acme" \
      org.opencontainers.image.description="nginx with certificates: write `acme;` in a server block" \
      org.opencontainers.image.licenses="BSD-2-Clause"
ENV NGINX_ACME_STATE_PATH=/var/lib/nginx-acme
ARG NGINX_USER=root
RUN install --directory --mode=0711 --owner="${NGINX_USER}" "${NGINX_ACME_STATE_PATH}"
VOLUME ${NGINX_ACME_STATE_PATH}
USER ${NGINX_USER}
EXPOSE 80 443
# nginx ends when its connections have.
STOPSIGNAL SIGQUIT
HEALTHCHECK --timeout=10m CMD ["nginx-acme-healthcheck"]
CMD ["nginx", "-g", "daemon off;"]
