#!/usr/bin/env bash
# Puts an image into a repository, unless it is there: tags are immutable. What staging has is copied,
# so that production runs the very bytes that were tried; else it is built of what is checked out.
#   usage: push.sh <repository> <staging's repository> <tag>
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$1 staging=$2 tag=$3

has() { aws ecr describe-images --repository-name "$1" --image-ids "imageTag=$tag" >/dev/null 2>&1; }
uri() { aws ecr describe-repositories --repository-names "$1" --query 'repositories[0].repositoryUri' --output text; }

target=$(uri "$repository"):$tag
if has "$repository"; then
    echo "$target is there already"
    exit
fi
aws ecr get-login-password | docker login --username AWS --password-stdin "${target%%/*}"
if [ "$repository" != "$staging" ] && has "$staging"; then
    source=$(uri "$staging"):$tag
    docker buildx imagetools create --tag "$target" "$source"
elif [ "$tag" = "$(git describe --always --dirty --abbrev=40 --exclude='*')" ]; then
    # For both kinds of processors, so that `architecture` can be changed without a new image.
    docker buildx build --platform linux/amd64,linux/arm64 --tag "$target" --push .
else
    echo "$tag is in no repository, and it is not what is checked out: check it out, or name another" >&2
    exit 2
fi
