#!/usr/bin/env bash
# Pushes an image to a repository, unless it exists: tags are immutable. An image that staging has
# is copied, so that production runs the same bytes; otherwise it is built from the commit that is
# checked out, with Docker or podman.
#   usage: push.sh <repository> <staging's repository> <tag>
# PLATFORMS, such as linux/amd64,linux/arm64, replaces the platforms of the environments.
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$1 staging=$2 tag=$3

has() { aws ecr describe-images --repository-name "$1" --image-ids "imageTag=$tag" >/dev/null 2>&1; }
uri() { aws ecr describe-repositories --repository-names "$1" --query 'repositories[0].repositoryUri' --output text; }

# Prints the platform of each environment's `architecture`, separated by commas. That is one, unless
# environments differ: then the image runs in all of them, since it is copied to production.
platforms() {
    local default values architecture
    default=$(sed -n -E '/^variable "architecture"/,/^}/s/^ *default *= *"(.*)".*/\1/p' terraform/variables.tf)
    for values in terraform/environments/*.tfvars; do
        architecture=$(sed -n -E 's/^ *architecture *= *"(.*)".*/\1/p' "$values")
        case ${architecture:-$default} in
        ARM64) echo linux/arm64 ;;
        X86_64) echo linux/amd64 ;;
        *)
            echo "$values: the architecture is neither ARM64 nor X86_64; set PLATFORMS, such as linux/arm64" >&2
            return 2
            ;;
        esac
    done | sort -u | paste -s -d , -
}

# Builds one platform with what every Docker and podman has. A build of several needs Buildx with a
# driver that supports it.
# https://docs.docker.com/build/building/multi-platform/
build() {
    case $1 in
    *,*) "$engine" buildx build --platform "$1" --tag "$target" --push . ;;
    *)
        "$engine" build --platform "$1" --tag "$target" .
        "$engine" push "$target"
        ;;
    esac
}

# Without imagetools, such as with podman, which prints other help for it, one platform is copied.
copy() {
    local help
    help=$("$engine" buildx imagetools --help 2>/dev/null) || true
    case $help,$2 in
    *imagetools*)
        "$engine" buildx imagetools create --tag "$target" "$1"
        return
        ;;
    *,*,*)
        echo "copying an image of several platforms ($2) requires Docker with Buildx" >&2
        return 2
        ;;
    esac
    "$engine" pull --platform "$2" "$1"
    "$engine" tag "$1" "$target"
    "$engine" push "$target"
}

case $tag in
'' | -dirty)
    echo "no commit is checked out here, and the tag of an image is its commit: commit first, or set a tag that exists: make push TAG=..." >&2
    exit 2
    ;;
*-dirty)
    echo "there are uncommitted changes, and the tag of an image is the commit that it is built from:" >&2
    git status --short -- . >&2
    echo "commit or stash them (git stash --include-untracked), or set a tag that exists: make push TAG=..." >&2
    exit 2
    ;;
esac
target=$(uri "$repository"):$tag
if has "$repository"; then
    echo "$target already exists"
    exit
fi
engine=$(command -v docker || command -v podman) || {
    echo "neither docker nor podman is installed" >&2
    exit 2
}
platforms=${PLATFORMS:-$(platforms)}
aws ecr get-login-password | "$engine" login --username AWS --password-stdin "${target%%/*}"
if [ "$repository" != "$staging" ] && has "$staging"; then
    copy "$(uri "$staging"):$tag" "$platforms"
elif [ "$tag" = "$(git rev-parse --quiet --verify HEAD)" ] && [ -z "$(git status --porcelain -- .)" ]; then
    build "$platforms"
else
    echo "image $tag does not exist, and $tag is not checked out without changes: check it out, or use another tag" >&2
    exit 2
fi
