#!/usr/bin/env bash
# Pushes an image to a repository, unless it exists: tags are immutable. An image that staging has
# is copied, so that production runs the same bytes; otherwise it is built from the commit that is
# checked out.
#   usage: push.sh <repository> <staging's repository> <tag>
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$1 staging=$2 tag=$3

has() { aws ecr describe-images --repository-name "$1" --image-ids "imageTag=$tag" >/dev/null 2>&1; }
uri() { aws ecr describe-repositories --repository-names "$1" --query 'repositories[0].repositoryUri' --output text; }

target=$(uri "$repository"):$tag
if has "$repository"; then
    echo "$target already exists"
    exit
fi
aws ecr get-login-password | docker login --username AWS --password-stdin "${target%%/*}"
if [ "$repository" != "$staging" ] && has "$staging"; then
    source=$(uri "$staging"):$tag
    docker buildx imagetools create --tag "$target" "$source"
elif [ "$tag" = "$(git describe --always --dirty --abbrev=40 --exclude='*')" ]; then
    # For both architectures, so that `architecture` can be changed without a new image.
    docker buildx build --platform linux/amd64,linux/arm64 --tag "$target" --push .
else
    echo "image $tag does not exist, and $tag is not checked out: check it out, or use another tag" >&2
    exit 2
fi
