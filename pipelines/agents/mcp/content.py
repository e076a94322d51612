"""Convert what a tool returns to the text that the model reads."""

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)
from pydantic_core import to_json

from pipelines.agents.mcp.values import clean_text


def content_text(result: CallToolResult) -> str:
    """Return the texts of a result, with images and other data described, or else its structured content as JSON."""
    texts = [_block_text(block) for block in result.content]
    if not texts and result.structured_content is not None:
        texts = [to_json(result.structured_content).decode()]
    return clean_text("\n".join(texts))


def _block_text(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}: {block.mime_type}, {_size(block.data)}, which cannot be shown]"
        case ResourceLink():
            return f"[resource: {block.name}, {block.uri}{f', {block.description}' if block.description else ''}]"
        case EmbeddedResource():
            return _resource_text(block)


def _resource_text(block: EmbeddedResource) -> str:
    resource = block.resource
    if isinstance(resource, BlobResourceContents):
        return f"[resource: {resource.uri}, {resource.mime_type or 'data'}, {_size(resource.blob)}]"
    return f"[resource: {resource.uri}]\n{resource.text}"


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4:,} bytes"
