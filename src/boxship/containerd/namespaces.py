"""The Namespaces service."""

import asyncio
import sqlite3

from boxship.api.containerd.namespaces import (
    CreateNamespaceRequest,
    CreateNamespaceResponse,
    DeleteNamespaceRequest,
    GetNamespaceRequest,
    GetNamespaceResponse,
    ListNamespacesRequest,
    ListNamespacesResponse,
    Namespace,
    UpdateNamespaceRequest,
    UpdateNamespaceResponse,
)
from boxship.api.containerd.published import NamespaceCreate, NamespaceDelete, NamespaceUpdate
from boxship.containerd.events import Exchange
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.records import (
    check_identifier,
    check_labels,
    decode_labels,
    encode_labels,
    mask_paths,
    masked_labels,
)
from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from boxship.image.database import Database
from boxship.protobuf import Empty

_HOLDS = {
    "containers": "SELECT 1 FROM records WHERE namespace=? AND kind='container'",
    "images": "SELECT 1 FROM records WHERE namespace=? AND kind='image'",
    "blobs": "SELECT 1 FROM content WHERE namespace=?",
    "snapshots": "SELECT 1 FROM snapshots WHERE namespace=?",
}


class NamespacesService:
    def __init__(self, database: Database, exchange: Exchange) -> None:
        self._database = database
        self._exchange = exchange

    async def Get(self, request: GetNamespaceRequest) -> GetNamespaceResponse:
        """One that is not there has no labels: containerd answers so, and dockerd asks before its first use."""
        try:
            return GetNamespaceResponse(namespace=self._get(request.name))
        except NotFound:
            return GetNamespaceResponse(namespace=Namespace(name=request.name))

    async def List(self, request: ListNamespacesRequest) -> ListNamespacesResponse:
        matches = parse([request.filter] if request.filter else [])
        found = [
            Namespace(name=name, labels=decode_labels(labels))
            for name, labels in self._database.rows("SELECT name, labels FROM namespaces ORDER BY name")
        ]
        return ListNamespacesResponse(namespaces=[one for one in found if matches(message_lookup(one))])

    async def Create(self, request: CreateNamespaceRequest) -> CreateNamespaceResponse:
        wanted = request.namespace or Namespace()
        check_identifier(wanted.name, "namespace")
        labels = check_labels(wanted.labels)
        try:
            self._database.run(
                "INSERT INTO namespaces (name, labels) VALUES (?,?)", (wanted.name, encode_labels(labels))
            )
        except sqlite3.IntegrityError:
            raise AlreadyExists(f"namespace {wanted.name!r}: already exists") from None
        await asyncio.to_thread(self._database.sync)
        self._exchange.publish("/namespaces/create", NamespaceCreate(name=wanted.name, labels=labels), wanted.name)
        return CreateNamespaceResponse(namespace=Namespace(name=wanted.name, labels=labels))

    async def Update(self, request: UpdateNamespaceRequest) -> UpdateNamespaceResponse:
        wanted = request.namespace or Namespace()
        current = self._get(wanted.name)
        paths = mask_paths(request.update_mask) or ["labels"]
        if any(path != "labels" and not path.startswith("labels.") for path in paths):
            raise InvalidArgument(f"cannot update {', '.join(paths)} of a namespace")
        labels = masked_labels(current.labels, wanted.labels, paths)
        self._database.run("UPDATE namespaces SET labels=? WHERE name=?", (encode_labels(labels), wanted.name))
        await asyncio.to_thread(self._database.sync)
        self._exchange.publish("/namespaces/update", NamespaceUpdate(name=wanted.name, labels=labels), wanted.name)
        return UpdateNamespaceResponse(namespace=Namespace(name=wanted.name, labels=labels))

    async def Delete(self, request: DeleteNamespaceRequest) -> Empty:
        with self._database.transaction():
            self._get(request.name)
            held = [what for what, query in _HOLDS.items() if self._database.row(query, (request.name,))]
            if held:
                raise FailedPrecondition(
                    f"namespace {request.name!r} must be empty, but it still has {', '.join(held)}"
                )
            self._database.run("DELETE FROM namespaces WHERE name=?", (request.name,))
            self._database.run("DELETE FROM records WHERE namespace=?", (request.name,))
            self._database.run("DELETE FROM lease_resources WHERE namespace=?", (request.name,))
        await asyncio.to_thread(self._database.sync)
        self._exchange.publish("/namespaces/delete", NamespaceDelete(name=request.name), request.name)
        return Empty()

    def _get(self, name: str) -> Namespace:
        row = self._database.row("SELECT labels FROM namespaces WHERE name=?", (name,))
        if row is None:
            raise NotFound(f"namespace {name!r}: not found")
        return Namespace(name=name, labels=decode_labels(row[0]))
